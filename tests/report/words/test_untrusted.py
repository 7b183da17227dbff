"""Whatever a title says, it stays text; and a redacted report has no titles at all."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import escaped, render_markdown
from pplr_audit.report.terminal.findings import summary_table
from pplr_audit.report.words.untrusted import LIMIT, plain

Json = dict[str, Any]
Make = Callable[..., Json]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg></textarea><h1>hello",
    "<!-- --><![CDATA[ ]]>&lt;b&gt;&#60;b&#62;",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200b\x1b[31mred\x00\x07",
    "a\nb\r\n# heading\n\n- item\n| cell |",
    "[link](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "`code` **bold** _em_ ~~gone~~ $math$ | pipe || @somebody #1 www.evil.example",
    "``` \n fence",
    "[bold red]rich[/bold red]",
    "\ud800 lone",
    "Z" + "\u0336\u0337" * 200,
    "x" * 20_000,
]


class Elements(HTMLParser):
    """Counts of elements, and every attribute."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.names: set[str] = set()
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.names |= {name for name, _ in attrs}

    def handle_comment(self, data: str) -> None:
        self.elements.append("comment")


def infected(findings: Json, evidence: Json, text: str) -> None:
    """Puts a text wherever somebody else's words can come in."""
    for example in evidence["examples"]:
        example.update(truth_text=text, guess_text=text)
        for slot in example["slots"]:
            slot.update(truth=text, guess=text)
    findings["run"].update(name=text or "x", not_measured=[text])
    findings["run"]["data"]["name"] = text
    findings["run"]["clients"][0]["name"] = text
    findings["run"]["libraries"] = {text: text}
    findings["findings"][0].update(defense=text, attack=text, knowledge=text, channel=text, client="all")
    both = findings["findings"][-3]
    both.update(attack=text, channel=text, knowledge=text, adversary=text, cut={"front": 1, "back": 1}, metric="auc")
    both.update(value=0.9, ci=[0.8, 1.0], baseline=0.5, status="ok")
    both["detail"] = {"settings": {text: text}, "beside": [text, "trunk_activations"]}
    told = findings["findings"][-4]
    told.update(secret="attribute", metric="auc", status="ok", value=0.6, ci=[0.5, 0.7], baseline=0.5)
    told["detail"] = {"attribute": text, "client_auc": text, "bag_of_items_auc": 0.7}
    findings["findings"][-2].update(cut={"front": 0, "back": 1}, detail={"reason": text or "x", "mode": text})
    evidence["examples"][-1].update(secret="label", knowledge=text, settings={text: text})
    findings["findings"][-1]["detail"] = {"reason": text, "mode": text, text: text}
    findings["utility"][1].update(client=text, strategy=text)
    evidence["training"][0]["client"] = text
    evidence["balance"][0]["clients"] = [text] * 5
    evidence["roc"][0].update(attack=text, metric_mode=text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_element_and_no_attribute_to_the_page(findings: Json, evidence: Json, text: str) -> None:
    infected(findings, evidence, "harmless")
    wanted = Elements(render_html(findings, evidence))
    infected(findings, evidence, text)
    html = render_html(findings, evidence)
    got = Elements(html)
    # <mark> and <i> say how texts differ, so their number follows the text; no other element may
    assert [e for e in got.elements if e not in ("mark", "i")] == [e for e in wanted.elements if e not in ("mark", "i")]
    assert got.names == wanted.names
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b]", html)
    html.encode("utf-8")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_element_to_the_rendered_markdown(findings: Json, evidence: Json, text: str) -> None:
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    infected(findings, evidence, "harmless")
    wanted = Elements(reader.render(render_markdown(findings, evidence)))
    infected(findings, evidence, text)
    markdown = render_markdown(findings, evidence)
    assert Elements(markdown).elements == []
    got = Elements(reader.render(markdown))
    assert [e for e in got.elements if e != "strong"] == [e for e in wanted.elements if e != "strong"]
    assert got.names == wanted.names
    markdown.encode("utf-8")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_escaped_markdown_reads_back_as_the_text(text: str) -> None:
    shown = plain(text).strip()
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(escaped(shown))
    assert Elements(page).elements == (["p"] if shown else [])


def test_long_text_is_cut(findings: Json) -> None:
    assert len(plain("x" * 20_000)) == LIMIT


def test_names_from_data_are_not_markup_on_the_terminal(findings: Json) -> None:
    from rich.console import Console

    findings["utility"][0]["strategy"] = "[bold red]rich[/bold red]\x1b[31m"
    console = Console(width=200, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(findings, 200))
    shown = console.export_text()
    assert "[bold red]rich[/bold red]" in shown
    assert "\x1b" not in shown


def secrets_of(findings: Json, evidence: Json) -> set[str]:
    """Every text of the documents that came from data."""
    texts = {slot[side] for e in evidence["examples"] for slot in e["slots"] for side in ("truth", "guess")}
    texts |= {e[side] for e in evidence["examples"] for side in ("truth_text", "guess_text")}
    return texts - {""}


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_a_redacted_report_holds_no_title_and_no_client_name(
    findings: Json, evidence: Json, next_items: list[Json], no_finding: Make, render: Callable[..., str]
) -> None:
    evidence["examples"] += next_items
    title = evidence["examples"][0]["slots"][0]["truth"]
    for i, client in enumerate(findings["run"]["clients"]):
        old, new = client["name"], f"attribute-value-{i}"
        client["name"] = new
        for row in [*findings["utility"], *evidence["examples"], *evidence["training"]]:
            row["client"] = new if row["client"] == old else row["client"]
        for entry in evidence["balance"]:
            entry["clients"] = [new if name == old else name for name in entry["clients"]]
    findings["findings"] += [
        no_finding("failed", "KeyError: 'an unknown secret title'", cut={"front": 1, "back": None}),
        no_finding("not_applicable", f"cannot find {title} in the catalogue", cut={"front": 1, "back": None}),
    ]
    findings["findings"][0]["detail"] = {"best": title, "tokens": 7}
    report = render(findings, evidence, redact=True)
    bare = report.replace("\\", "")
    for secret in (*secrets_of(findings, evidence), "an unknown secret title", "attribute-value", "user row"):
        assert secret not in bare
    assert "Toy Story" not in bare
    assert "Redacted" in bare
    assert "[withheld]" in bare
    assert "client 1" in bare
    assert "4 of 5 items recovered" in bare
    assert "2 of 3 next items recovered" in bare


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_an_open_report_shows_the_titles(findings: Json, evidence: Json, render: Callable[..., str]) -> None:
    report = render(findings, evidence)
    assert "Usual" in report
    assert "Redacted" not in report
