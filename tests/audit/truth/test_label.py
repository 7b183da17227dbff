"""Scores of next items from hand-made guesses."""

import numpy as np

from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.threat_model.attack import Guess


def test_items_as_popular_as_each_other_are_no_baseline_by_their_place_in_the_catalogue() -> None:
    """Every user's next item is one of the first of the catalogue, and all items are equally popular."""
    rows = {row: row for row in range(10)}
    label = LabelTruth(rows, rows, np.arange(48), np.ones(48))
    answer = Guess({"rows": np.arange(10), "labels": np.full((10, 10), 40)})
    baseline = {score.metric: score.baseline for score in label.score(answer, seed=0)}["label_hit@10"]
    assert baseline < 0.6, "10 of 48 are expected"
