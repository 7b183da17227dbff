"""A measure of balance without an interval is accepted and shown with the reason, in each of its two tables."""

from typing import Any

from pplr_audit.report.formats.html import render_html
from pplr_audit.report.formats.markdown import render_markdown
from pplr_audit.runs.documents import validate

Json = dict[str, Any]
REASON = "a client has 3 users; below 20 nothing can be said about the spread over clients"


def test_a_refused_interval_is_a_null_with_its_reason_for_every_reader(findings: Json, evidence: Json) -> None:
    refused = {"metric": "recall@10", "measure": "jain", "value": 0.8125, "ci": None, "n": 403, "reason": REASON}
    findings["balance"] = [{**refused, "strategy": "pplr", "defense": "none"}]
    findings["differences"] = [{**refused, "strategy": "pplr", "against": "fedavg", "client": "all"}]
    validate(findings)
    for page in (render_html(findings, evidence), render_markdown(findings, evidence)):
        assert page.count(REASON) == 2
        assert "0.8125" in page
        assert "+0.8125" in page
