"""Who got what from whom, as it is drawn and written."""

import re
from typing import Any

import pytest

from pplr_audit.report.charts.mixing import mixing_chart, similarity_chart
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.report.sections.training import mixed_shares, training
from pplr_audit.runs.documents import validate_evidence

Json = dict[str, Any]
NAMES = ["c0", "c1", "c2", "c3", "c4"]


def of_rounds(rounds: int, clients: list[str]) -> list[Json]:
    share = 1 / len(clients)
    return [
        {"round": r, "clients": clients, "matrix": [[share] * len(clients)] * len(clients)}
        for r in range(1, rounds + 1)
    ]


def figure_titles(html: str) -> list[str]:
    section = html.split('<section id="training"')[1].split("</section>")[0]
    return re.findall(r'<text class="title"[^>]*>([^<]*)', section)


def test_a_square_is_the_darker_the_larger_the_share_and_says_it() -> None:
    chart = mixing_chart(3, ["north", "south"], [[0.75, 0.25], [0.0, 1.0]], [0.4, 0.6], [0.91, 0.52])
    assert [path.kind for path in chart.areas] == ["heat h8", "heat h2", "heat h0", "heat h10"]
    texts = [label.text for label in chart.labels]
    assert texts[:2] == ["75%", "25%"]
    assert "w 0.91  l 0.40" in texts
    assert "w 0.52  l 0.60" in texts
    assert "north keeps 75%; south keeps 100%" in chart.description
    rows = {label.text: float(label.y) for label in chart.labels if label.text in ("north", "south")}
    tops = [float(path.d.split()[1].split("h")[0]) for path in chart.areas]
    assert tops[0] < rows["north"] < tops[2] < rows["south"]


def test_how_alike_clients_are_is_drawn_and_said_of_each_pair() -> None:
    chart = similarity_chart(2, ["north", "south"], [[1.0, -0.2], [-0.2, 1.0]])
    assert [path.kind for path in chart.areas] == ["heat h10", "heat h0", "heat h0", "heat h10"]
    assert [label.text for label in chart.labels][:2] == ["1.00", "-0.20"]
    assert "south and north -0.20" in chart.description


def test_similarity_is_drawn_where_it_was_recorded(findings: Json, evidence: Json) -> None:
    html = render_html(findings, evidence)
    rounds = {entry["round"] for entry in evidence["balance"] if "similarity" in entry}
    assert rounds
    assert f"Similarity S, round {max(rounds)}" in figure_titles(html)
    for entry in evidence["balance"]:
        del entry["similarity"]
        entry["matrix"] = [[1.0] * len(entry["clients"])] * len(entry["clients"])
    assert not [title for title in figure_titles(render_html(findings, evidence)) if title.startswith("Similarity")]


def test_evidence_without_a_matrix_is_drawn_by_the_formula_of_the_balance() -> None:
    entry = {"weights": [0.5, 1.0], "similarity": [[1.0, 0.8], [0.8, 1.0]]}
    rows = mixed_shares(entry)
    assert rows[0] == pytest.approx([1 / 1.4, 0.4 / 1.4])
    assert rows[1] == pytest.approx([0.8 / 1.8, 1 / 1.8])


@pytest.mark.parametrize("rounds", [1, 5, 40])
def test_a_strategy_without_terms_of_a_balance_has_its_matrix_drawn_too(
    findings: Json, evidence: Json, rounds: int
) -> None:
    evidence["balance"] = of_rounds(rounds, NAMES)
    validate_evidence(evidence)
    html = render_html(findings, evidence)
    titles = figure_titles(html)
    drawn = [int(title.split()[1]) for title in titles if title.startswith("Round ")]
    assert drawn == sorted(set(drawn))
    assert drawn[0] == 1
    assert drawn[-1] == rounds
    assert len(drawn) == min(rounds, 6)
    assert "Learning speed w" not in titles
    assert "20.0%" in render_markdown(findings, evidence).replace("\\", "")
    assert "learning status" not in html


def test_rounds_with_different_clients_are_drawn_with_their_own_names(findings: Json, evidence: Json) -> None:
    """Not all clients train in every round."""
    evidence["balance"] = of_rounds(1, ["c0", "c3"]) + [{**e, "round": 2} for e in of_rounds(1, ["c1"])]
    validate_evidence(evidence)
    html = render_html(findings, evidence)
    assert "c0 keeps 50%; c3 keeps 50%" in html
    assert "c1 keeps 100%" in html


def test_the_metric_that_stops_clients_has_its_curve(findings: Json, evidence: Json) -> None:
    for row in evidence["training"]:
        row["metric"] = 0.1
    validate_evidence(evidence)
    assert "Validation metric" in figure_titles(render_html(findings, evidence))


def test_hundreds_of_clients_are_left_to_the_evidence(findings: Json, evidence: Json) -> None:
    evidence["balance"] = of_rounds(1, [f"user-{i}" for i in range(30)])
    (text,) = [b.text for b in training(findings, evidence).blocks if hasattr(b, "text") and "evidence" in b.text]
    assert text.startswith("30 clients")
