"""Section on membership: curves, and the rates that the audit can resolve."""

from pplr_audit.report.blocks.content import Block, Cell, Figure, Section, Table, Text, labels
from pplr_audit.report.charts.membership import against_baseline_chart
from pplr_audit.report.charts.roc import roc_chart
from pplr_audit.report.findings.series import metrics_in_order, overall, series, strongest, value_cell
from pplr_audit.report.sentences.protocol import checked
from pplr_audit.report.words.vocabulary import cut_words, metric_words
from pplr_audit.runs.documents import Document

LEAD = (
    "Membership was decided by a fair coin for each user before training. The AUC compares users of one client. Curves "
    "and rates set one threshold for all clients, on scores that are standardized by the client's other non-members. "
    "Clients with fewer than 5 non-members are left out. A curve on the diagonal is as good as a coin. A false-alarm "
    "rate has no value if there are too few non-members for it. A rate over all users is not a bound of differential "
    "privacy."
)


def membership(findings: Document, evidence: Document) -> Section:
    """The ROC picture and the table of AUC and true-positive rates."""
    rows = [row for row in overall(findings["findings"]) if row["secret"] == "membership"]
    curves = [curve for curve in evidence["roc"] if curve["client"] == "all"] or list(evidence["roc"])
    if not rows and not curves:
        return Section("membership", "Who can be recognized", (Text("No membership attack was part of this audit."),))
    blocks: list[Block] = [Text(LEAD), *map(Text, checked(findings))]
    metrics = metrics_in_order(rows, "membership")
    lines = series(rows)
    charts = [roc_chart([(_label(curve), curve) for curve in curves])] if curves else []
    lanes = [(s.label, [row for row in s.rows if row["metric"] == metrics[0]]) for s in lines]
    strongest_of = [(f"{label} · {_place(row)}", row) for label, rows in lanes if rows for row in [_loudest(rows)]]
    charts += [against_baseline_chart(metrics[0], strongest_of)] if strongest_of else []
    blocks.append(Figure("", tuple(charts)))
    table = []
    for s in lines:
        for cut in s.cuts:
            named = labels(s.label, s.rows[0]["channel"], cut_words(cut))
            table.append((*named, *(_cell(s.at(cut, m)) for m in metrics)))
    if table:
        said = "; ".join(f"{m} is {metric_words(m)}" for m in metrics)
        caption = f"Membership, value with 95% interval and baseline; a dash: not a metric of this attack. {said}."
        blocks.append(Table(caption, ("attack", "channel", "cut", *metrics), tuple(table), headers=2))
    else:
        blocks.append(_curves_only(curves))
    return Section("membership", "Who can be recognized", tuple(blocks))


def _loudest(rows: list[Document]) -> Document:
    """One lane a series: its strongest cut, or the reason why it has none."""
    return strongest(rows) or rows[0]


def _cell(row: Document | None) -> Cell:
    """Attacks on membership rarely share their metrics, so a metric that is not an attack's own gets a dash."""
    return Cell("–", mark="status") if row is None else value_cell(row)


def _place(row: Document) -> str:
    return f"{row['channel']}, {cut_words(row['cut'])}" if row["cut"] else str(row["channel"])


def _label(curve: Document) -> str:
    parts = [curve["attack"], curve["metric_mode"], cut_words(curve["cut"]) if curve["cut"] else ""]
    return " · ".join(part for part in parts if part)


def _curves_only(curves: list[Document]) -> Table:
    rows = tuple(
        (Cell(_label(curve)), Cell(f"{curve['auc']:.3f}", "no interval was given", mark="number")) for curve in curves
    )
    return Table("Area under each curve", ("curve", "auc"), rows)
