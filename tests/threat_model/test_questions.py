"""A secret goes through the whole chain: its question, its metrics, its words, and the schema of findings."""

import json
from pathlib import Path
from typing import get_args

import pytest

import pplr_audit
from pplr_audit.audit.cell import METRICS
from pplr_audit.audit.plan import MEASURED
from pplr_audit.report.words.quantities import number
from pplr_audit.report.words.vocabulary import ADVERSARIES, HEADLINE, SECRETS, metric_claim, metric_words
from pplr_audit.scenario import Audit
from pplr_audit.threat_model import QUESTIONS, SEES, Channel
from pplr_audit.threat_model.adversaries import Secret, channels_of, readable_by


@pytest.mark.parametrize("secret", get_args(Secret))
def test_every_secret_has_a_question_metrics_words_and_a_place_in_the_schema(secret: str) -> None:
    assert QUESTIONS[secret].asks
    assert SECRETS[secret]
    assert MEASURED[secret]
    schema = json.loads((Path(pplr_audit.__file__).parent / "runs" / "findings.schema.json").read_text())
    assert secret in schema["$defs"]["finding"]["properties"]["secret"]["enum"]
    for metric in {*METRICS[secret], *HEADLINE[secret]}:
        assert metric_words(metric) != metric, "said in words"
        assert metric not in metric_claim(metric, number(metric, 0.5))


def test_every_adversary_that_can_be_asked_for_is_described_and_sees_something() -> None:
    asked = get_args(get_args(Audit.model_fields["adversaries"].annotation)[0])
    assert set(asked) == set(ADVERSARIES)
    assert all(channels_of(name) for name in asked)
    assert SEES["peer"].isdisjoint({Channel.CLIENT_UPDATE, Channel.FRONT_ACTIVATIONS})


def test_the_sum_can_be_read_by_whoever_sees_each_update() -> None:
    assert {name for name in ADVERSARIES if Channel.AGGREGATE in readable_by(name)} == {
        "server", "aggregator", "malicious_server",
    }  # fmt: skip
