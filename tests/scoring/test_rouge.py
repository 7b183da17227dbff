import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from pplr_audit.scoring.rouge import rouge_l, rouge_n


@pytest.mark.parametrize("vocabulary", [3, 12, 200])
def test_rouge_is_that_of_the_rouge_score_package(vocabulary: int) -> None:
    """Google's port of Lin's script, given the same words."""
    generator = np.random.default_rng(vocabulary)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for _ in range(200):
        guess, truth = (generator.integers(vocabulary, size=generator.integers(0, 30)).tolist() for _ in range(2))
        theirs = scorer.score(*(" ".join(f"w{word}" for word in text) for text in (truth, guess)))
        ours = {"rouge1": rouge_n(guess, truth, 1), "rouge2": rouge_n(guess, truth, 2), "rougeL": rouge_l(guess, truth)}
        assert ours == pytest.approx({name: each.fmeasure for name, each in theirs.items()})
