"""The section on the strongest attack at each cut: maps, lines, and the table that says the same in words."""

from collections.abc import Callable
from typing import Any

from pplr_audit.report.blocks.content import Block, Figure, Fold, Table
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.report.sections.strongest import OPEN_ROWS, strongest_by_cut

Json = dict[str, Any]
Make = Callable[..., Json]


def figures(blocks: list[Block]) -> list[Figure]:
    return [block for block in blocks if isinstance(block, Figure)]


def titles(figure: Figure) -> list[str]:
    return [chart.title for chart in figure.charts]


def table(blocks: list[Block], caption: str) -> list[list[str]]:
    (found,) = [block for block in blocks if isinstance(block, Table) and caption in block.caption]
    return [[cell.text for cell in row] for row in found.rows]


def of(findings: Json, secret: str) -> list[Json]:
    return [row for row in findings["findings"] if row["secret"] == secret]


def test_training_and_serving_stand_apart(findings: Json) -> None:
    blocks = strongest_by_cut("history", of(findings, "history"), findings["run"])
    (figure,) = figures(blocks)
    assert titles(figure) == ["Training: ridge", "Serving: ridge", "Strongest attack against k"]
    assert [entry.label for entry in figure.charts[2].legend][:2] == ["in training", "in serving"]
    assert [chart.subtitle for chart in figure.charts[:2]] == [
        "front_activations, knows front", "inference_activations, knows front",
    ]  # fmt: skip
    rows = table(blocks, "at every cut")
    assert rows[0] == ["training", "k=0", "99.5%", "ridge", "front_activations", "front", "server"]
    assert ["serving", "k=4", "budget exhausted", "ridge", "inference_activations", "front", "server"] in rows


def test_the_next_item_has_the_most_of_all_channels_and_each_attack_alone(
    findings: Json, label_rows: list[Json]
) -> None:
    blocks = strongest_by_cut("label", label_rows, findings["run"])
    first, alone = figures(blocks)
    assert titles(first) == [
        "Training: strongest of 3 attacks", "Strongest attack against k, with m=1",
        "Strongest attack against m, with k=1",
    ]  # fmt: skip
    assert sorted(titles(alone)) == ["Training: bidirectional", "Training: label_match", "Training: ridge"]
    squares = [label.text for label in first.charts[0].labels if label.kind == "square"]
    assert len(squares) == 15
    rows = {row[1]: row for row in table(blocks, "at every cut")}
    assert rows["k=1, m=1"][2:5] == ["89.0%", "bidirectional", "back_gradients"]
    assert rows["k=1, m=3"][2:5] == ["81.0%", "ridge", "front_activations"]
    assert rows["k=1 to 4, m=0"][2:6] == ["96.0%", "label_match", "back_gradients", "base"]


def test_a_point_of_a_line_says_which_attack_it_is(findings: Json, label_rows: list[Json]) -> None:
    against_m = figures(strongest_by_cut("label", label_rows, findings["run"]))[0].charts[2]
    assert [mark.tip.rsplit(", ", 1)[1] for mark in against_m.marks] == [
        "label_match on back_gradients", "bidirectional on back_gradients", "bidirectional on back_gradients",
        "ridge on front_activations",
    ]  # fmt: skip
    assert "89.0% [84.0%, 93.0%]" in against_m.marks[1].tip


def test_what_each_adversary_had_to_know_is_said(findings: Json, label_rows: list[Json]) -> None:
    rows = {row[0]: row for row in table(strongest_by_cut("label", label_rows, findings["run"]), "had to know")}
    assert rows["label_match"][2] == "back_gradients"
    assert rows["label_match"][3].startswith("base: the public base weights only")
    assert rows["ridge"][3].startswith("front: the client's layers as the server last balanced them")


def test_what_is_read_beside_and_what_is_learned_from_is_said(findings: Json, a_finding: Make) -> None:
    details: tuple[Json, ...] = (
        {"beside": ["trunk_activations"], "auxiliary": "public"}, {"colluder": "client-2"},
        {"auxiliary": "matched", "auxiliary_users": 144, "auxiliary_random": 0},
        {"auxiliary": "matched", "auxiliary_users": 0, "auxiliary_random": 9}, {"auxiliary": "catalogue"},
    )  # fmt: skip
    rows = [
        a_finding(attack=name, cut={"front": k, "back": None}, detail=detail)
        for name, detail in zip(("one", "other", "real", "nobody", "random"), details, strict=True)
        for k in (0, 1)
    ]
    told = {row[0]: row for row in table(strongest_by_cut("history", rows, findings["run"]), "had to know")}
    assert told["one"][2] == f"{rows[0]['channel']} and trunk_activations"
    assert told["one"][4] == "random histories over another catalogue"
    assert told["other"][4] == "prompts of client-2, who colludes"
    assert told["real"][4] == "histories of 144 users of the reserve"
    assert told["nobody"][4] == "random histories over the same catalogue, as the reserve has no user"
    assert told["random"][4] == "random histories over the same catalogue"


def test_two_settings_of_one_attack_are_told_apart(findings: Json, a_finding: Make) -> None:
    rows = [
        a_finding(cut={"front": k, "back": None}, value=v, ci=[v, v], detail={"settings": {"prompts": n}})
        for k, n, v in ((0, 64, 0.5), (0, 128, 0.9), (1, 64, 0.7), (1, 128, 0.6))
    ]
    told = [row[:4] for row in table(strongest_by_cut("history", rows, findings["run"]), "at every cut")]
    assert told == [
        ["training", "k=0", "90.0%", "ridge · prompts=128"], ["training", "k=1", "70.0%", "ridge · prompts=64"],
    ]  # fmt: skip


def test_what_needs_no_cut_counts_at_every_audited_cut(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut={"front": k, "back": None}, value=v, ci=[v, v]) for k, v in ((0, 0.9), (1, 0.1))]
    rows.append(a_finding(cut=None, channel="metadata", attack="length", value=0.2, ci=[0.15, 0.25]))
    told = [row[1:4] for row in table(strongest_by_cut("history", rows, findings["run"]), "at every cut")]
    assert told == [["k=0", "90.0%", "ridge"], ["k=1, m=0 to 3", "20.0%", "length"]]


def test_a_map_of_one_attack_has_no_cross_where_only_a_cut_without_a_trunk_was_asked_for(
    findings: Json, a_finding: Make, no_finding: Make
) -> None:
    rows = [a_finding(cut={"front": 1, "back": None}, attack=attack) for attack in ("ridge", "inverter")]
    rows += [no_finding("not_applicable", "nothing crosses", cut={"front": 4, "back": 1}, attack="ridge")]
    rows += [no_finding("not_applicable", "sees none of it", cut=None, attack="ridge", adversary="outsider")]
    first, alone = figures(strongest_by_cut("history", rows, findings["run"]))
    assert titles(alone) == ["Training: ridge", "Training: inverter"]
    assert not any(chart.marks for chart in alone.charts)
    assert not first.charts[0].marks


def test_without_a_value_at_a_cut_there_is_no_map(findings: Json, a_finding: Make, no_finding: Make) -> None:
    failed = no_finding("failed", "out of memory", cut={"front": 1, "back": None})
    anywhere = a_finding(cut=None, channel="client_update")
    for rows in ([], [failed], [anywhere], [failed, anywhere]):
        assert strongest_by_cut("history", rows, findings["run"]) == []


def test_many_maps_and_long_tables_are_folded(findings: Json, a_finding: Make) -> None:
    rows = [
        a_finding(cut={"front": k, "back": m}, attack=f"a{n}", value=0.5 + (n + k + m) / 1000)
        for n in range(8)
        for k in range(12)
        for m in range(12 - k)
    ]
    run = {**findings["run"], "layers": 12}
    folds = [block for block in strongest_by_cut("history", rows, run) if isinstance(block, Fold)]
    assert [fold.title for fold in folds] == ["Every cut (78 rows)", "Each attack by itself (8 maps)"]
    assert OPEN_ROWS < 78


def test_each_defense_has_its_own_map(findings: Json, evidence: Json, a_finding: Make) -> None:
    findings["findings"] = [
        a_finding(cut={"front": k, "back": None}, defense=defense, value=value)
        for defense, value in (("none", 0.9), ("noise", 0.3))
        for k in (0, 1)
    ]
    html = render_html(findings, evidence)
    assert html.count("The most that any attack reads at each cut") == 2
    assert "true item named first; defense noise" in html


def test_both_sides_are_in_the_page_and_in_markdown(findings: Json, evidence: Json, label_rows: list[Json]) -> None:
    findings["findings"] += label_rows
    html, markdown = render_html(findings, evidence), render_markdown(findings, evidence).replace("\\", "")
    assert "| training | k=1, m=1 | 89.0% [84.0%, 93.0%], baseline 2.0% | bidirectional | back_gradients |" in markdown
    assert "<title>k=1, m=1: 89.0% [84.0%, 93.0%], baseline 2.0%; bidirectional on back_gradients" in html
    assert "Its attacks depend on k and m, see the maps" not in html  # label_match on the same channel has its lines
    findings["findings"] = [row for row in label_rows if row["attack"] == "bidirectional"]
    assert "Its attacks depend on k and m, see the maps" in render_html(findings, evidence)
