"""One page, whole and well-formed, that shows everything as it was measured."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt

from pplr_audit.report.blocks.content import Figure
from pplr_audit.report.findings.series import series
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import escaped, render_markdown
from pplr_audit.report.sections import sections
from pplr_audit.runs.documents import judged

Json = dict[str, Any]
Make = Callable[..., Json]
VOID = {"meta", "br", "link", "img", "input", "hr"}
SECTIONS = [
    "answer", "threat", "leakage", "histories", "membership", "utility", "costs", "training", "method", "findings",
    "reproduce",
]  # fmt: skip


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on an element that is not closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        """All text of the page."""
        return " ".join(" ".join(self.text).split())


def picture_of(html: str, title: str) -> str:
    """The one picture with a title."""
    (found,) = [part for part in re.findall("<svg.*?</svg>", html, re.DOTALL) if f'y="13">{title}<' in part]
    return str(found)


def test_every_section_is_there_once_and_in_order(findings: Json, evidence: Json) -> None:
    page = Page(render_html(findings, evidence))
    ids = [value for name, value in page.attributes if name == "id"]
    assert [i for i in ids if not i.endswith("-h")] == SECTIONS
    assert len(ids) == len(set(ids))
    assert page.elements.count("h1") == 1


def test_the_page_fetches_nothing_and_runs_nothing(findings: Json, evidence: Json) -> None:
    html = render_html(findings, evidence)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert not re.search(r"https?://|url\(|@import", html)
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "src", "xlink:href"))
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_pictures_speak_and_tables_have_headers(findings: Json, evidence: Json) -> None:
    html = render_html(findings, evidence)
    pictures = re.findall(r'<svg viewBox="[^"]*" role="img" aria-label="([^"]*)"', html)
    assert len(pictures) >= 12
    assert all(len(label) > 40 for label in pictures)
    tables = html.split("<table")[1:]
    assert tables
    assert all("<caption>" in table and '<th scope="col"' in table and '<th scope="row"' in table for table in tables)


def test_the_same_documents_give_the_same_bytes(findings: Json, evidence: Json) -> None:
    assert render_html(findings, evidence) == render_html(findings, evidence)
    assert render_markdown(findings, evidence) == render_markdown(findings, evidence)


def test_rendering_leaves_the_documents_as_they_were(findings: Json, evidence: Json) -> None:
    before = repr((findings, evidence))
    render_html(findings, evidence, redact=True)
    render_markdown(findings, evidence, redact=True)
    assert repr((findings, evidence)) == before


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("not_applicable", "not applicable"),
        ("failed", "failed"),
        ("budget_exhausted", "budget exhausted"),
        ("skipped", "skipped"),
    ],
)
def test_a_cell_without_a_value_shows_its_status_and_reason(
    findings: Json, evidence: Json, no_finding: Make, status: str, words: str
) -> None:
    findings["findings"] = [no_finding(status, "because of the moon", cut={"front": 1, "back": None})]
    html, markdown = render_html(findings, evidence), render_markdown(findings, evidence)
    assert f'<td class="status">{words}<small>because of the moon</small></td>' in html
    assert f"| {words} because of the moon |" in markdown
    assert "0%" not in Page(html.split('id="leakage"')[1].split('<section id="histories"')[0].split(">", 1)[1]
                            .rsplit("</section>", 1)[0]).words  # fmt: skip


def test_html_and_markdown_tell_the_same_values(findings: Json, evidence: Json) -> None:
    words = Page(render_html(findings, evidence)).words
    plain = render_markdown(findings, evidence).replace("\\", "")
    for value in ("64.8%", "[58.1%, 71.5%]", "0.655", "[0.601, 0.708]", "0.1280", "72.2 MB", "budget exhausted"):
        assert value in words
        assert value in plain


def test_a_value_at_its_baseline_is_marked(findings: Json, evidence: Json) -> None:
    html = render_html(findings, evidence)
    assert re.search(r'<td class="near"><span[^>]*>≈ </span>0\.541', html)
    assert "≈ 0.541" in render_markdown(findings, evidence).replace("\\", "")


def test_new_attacks_channels_metrics_and_defenses_need_no_change(
    findings: Json, evidence: Json, a_finding: Make
) -> None:
    for k in range(3):
        for defense in ("none", "dp_sgd(epsilon=8)+quantize(bits=8)"):
            findings["findings"].append(
                a_finding(
                    attack="seance", channel="ether", metric="vibes@3", defense=defense, cut={"front": k, "back": 1}
                )
            )
    findings["findings"].append(
        a_finding(secret="label", channel="trunk_activations", metric="label_hit@5", cut={"front": None, "back": 2})
    )
    words = Page(render_html(findings, evidence)).words
    for expected in ("seance", "ether", "vibes@3", "dp_sgd(epsilon=8)+quantize(bits=8)", "label_hit@5", "m=2"):
        assert expected in words


def test_an_empty_audit_still_makes_a_page(findings: Json, evidence: Json) -> None:
    findings.update(findings=[], utility=[], costs=[])
    evidence.update(examples=[], roc=[], training=[], balance=[])
    page = Page(render_html(findings, evidence))
    assert "No membership attack was part of this audit." in page.words
    assert "No costs were computed" in render_markdown(findings, evidence)


def test_hundreds_of_clients_do_not_flood_the_pictures(findings: Json, evidence: Json) -> None:
    row = findings["utility"][0]
    findings["utility"] += [{**row, "client": f"user-{i}"} for i in range(300)]
    evidence["training"] += [{"round": r, "client": f"user-{i}", "loss": 1.0} for r in (1, 2) for i in range(300)]
    html = render_html(findings, evidence)
    assert "more clients in the table" in html
    assert len(html) < 1_000_000


def test_a_picture_has_its_caption_in_markdown_so_that_defenses_are_told_apart(
    findings: Json, evidence: Json, a_finding: Make
) -> None:
    cuts = [{"front": k, "back": None} for k in (0, 1)]
    findings["findings"] = [a_finding(cut=cut, defense=name) for name in ("none", "noise(scale=1)") for cut in cuts]
    findings["run"]["defenses"] = ["none", "noise(scale=1)"]
    text = render_markdown(findings, evidence)
    figures = [b for part in sections(judged(findings), evidence) for b in part.blocks if isinstance(b, Figure)]
    for name in ("none", "noise(scale=1)"):
        captions = [each.caption for each in figures if name == "none" or name in each.caption]
        assert captions
        assert all(f"*{escaped(caption)}*" in text for caption in captions)


def test_markdown_tables_are_tables(findings: Json, evidence: Json) -> None:
    page = MarkdownIt("commonmark").enable("table").render(render_markdown(findings, evidence))
    tables = page.split("<table>")[1:]
    assert len(tables) > 12
    for table in tables:
        columns = table.split("</thead>")[0].count("</th>")
        rows = table.split("</table>")[0].split("<tr>")[2:]
        assert all(row.count("</td>") == columns for row in rows)


def test_a_long_table_is_folded_behind_the_strongest_attack_at_each_depth(
    findings: Json, evidence: Json, a_finding: Make
) -> None:
    for attack, value in (("weak", 0.2), ("strong", 0.8)):
        findings["findings"] += [
            a_finding(attack=attack, cut={"front": k, "back": None}, value=value, ci=[value - 0.1, value + 0.1])
            for k in range(30)
        ]
    html = render_html(findings, evidence)
    assert "the strongest attack at each depth" in html
    assert "<small>strong: [70.0%, 90.0%], baseline 1.2%</small>" in html
    assert re.search(r"<summary>All attacks \(\d+ rows\)</summary>", html)


def test_of_many_metrics_the_first_are_drawn_and_all_are_in_the_table(
    findings: Json, evidence: Json, a_finding: Make
) -> None:
    names = ["item_hit@1", "token_accuracy", "exact_history", "item_hit@5", "item_hit@10", "rouge1", "rouge2"]
    findings["findings"] = [a_finding(metric=name, cut={"front": k, "back": None}) for name in names for k in (0, 1)]
    section = render_html(findings, evidence).split('<section id="leakage"')[1].split("<section")[0]
    drawn = [name for name in names if f'y="13">{name}<' in section]
    assert drawn[:3] == names[:3]
    assert len(drawn) == 4
    assert all(f'<th scope="col">{name}</th>' in section for name in names)


def test_one_attack_on_two_channels_is_told_twice(findings: Json, evidence: Json, a_finding: Make) -> None:
    for channel, value in (("front_activations", 0.91), ("inference_activations", 0.87)):
        findings["findings"].append(
            a_finding(attack="lookup", channel=channel, secret="membership", metric="auc", value=value,
                      ci=[value - 0.01, value + 0.01], baseline=0.5)
        )  # fmt: skip
    section = render_html(findings, evidence).split('<section id="membership"')[1].split("<section")[0]
    assert "0.910" in section
    assert "0.870" in section


def test_a_single_client_is_shown_where_nothing_was_scored_over_all(
    findings: Json, evidence: Json, a_finding: Make
) -> None:
    findings["findings"].append(a_finding(attack="lonely", client="c3", value=0.4321, ci=[0.4, 0.5]))
    section = render_html(findings, evidence).split('<section id="leakage"')[1].split("<section")[0]
    assert "lonely" in section
    assert "43.2%" in section


def test_what_is_read_wherever_the_cut_is_stands_under_leakage(findings: Json, evidence: Json, a_finding: Make) -> None:
    findings["findings"].append(
        a_finding(attack="rows", channel="client_update", cut=None, value=0.4321, ci=[0.4, 0.5])
    )
    section = render_html(findings, evidence).split('<section id="leakage"')[1].split("<section")[0]
    assert "where the finding names no cut" in section
    assert "43.2%" in section


def test_a_cut_without_a_trunk_belongs_to_the_line_of_its_attack(
    findings: Json, evidence: Json, a_finding: Make, no_finding: Make
) -> None:
    findings["findings"] = [a_finding(cut={"front": k, "back": None}) for k in range(5)]
    findings["findings"].append(no_finding("not_applicable", "nothing crosses", cut={"front": 5, "back": 0}))
    section = render_html(findings, evidence).split('<section id="leakage"')[1].split("<section")[0]
    assert '<th scope="row">ridge</th><th scope="row">k=4</th>' in section
    assert (
        '<th scope="row">ridge</th><th scope="row">k=5</th><td class="status">not applicable'
        "<small>nothing crosses</small></td>" in section
    )
    picture = picture_of(section, "item_hit@1")
    assert picture.count("nothing crosses") == 1
    assert "m=" not in picture


def test_a_cut_without_a_trunk_is_no_depth_of_an_attack_that_reads_the_back(
    findings: Json, evidence: Json, a_finding: Make, no_finding: Make
) -> None:
    same = {"secret": "label", "metric": "label_hit@1", "channel": "back_gradients", "attack": "label_match"}
    findings["findings"] = [a_finding(cut={"front": None, "back": m}, **same) for m in range(5)]
    findings["findings"].append(no_finding("not_applicable", "nothing crosses", cut={"front": 5, "back": 0}, **same))
    section = render_html(findings, evidence).split('<section id="leakage"')[1].split("<section")[0]
    for title in ("label_hit@1", "Strongest attack against m"):
        picture = picture_of(section, title)
        assert "nothing crosses" not in picture
        assert "blocks kept at the back, m" in picture
    assert "Strongest attack against k" not in section


def test_what_was_asked_of_a_run_beyond_its_scenario_is_said(findings: Json, evidence: Json) -> None:
    findings["run"]["audit"]["extensions"] = [
        {"attacks": [{"ridge": {"prompts": 64}}], "cuts": None},
        {"attacks": None, "cuts": [[2, 1]]},
        {"attacks": ["loss"], "cuts": "all"},
    ]
    text = render_markdown(findings, evidence)
    assert '{"ridge": {"prompts": 64}} at all cuts; all attacks at [2, 1]; loss at all cuts' in text.replace("\\", "")


def test_one_attack_with_two_settings_is_two_series(a_finding: Make) -> None:
    rows = [a_finding(detail={"settings": {"prompts": n}}, value=v) for n, v in ((64, 0.5), (128, 0.9))]
    lines = series(rows)
    assert sorted(line.label for line in lines) == ["ridge · prompts=128", "ridge · prompts=64"]
    assert [len(line.rows) for line in lines] == [1, 1]
