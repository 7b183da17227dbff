"""RecFormer ranks by what it encodes, however its work is cut into batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplr_audit.data.prompts import ragged
from pplr_audit.data.recformer_prompts import item_prompts
from pplr_audit.models.recommenders import recformer
from pplr_audit.models.recommenders.recformer import ITEMS, RecFormer, add_marks
from pplr_audit.models.recommenders.task import CatalogueEncoding, Tally, Weights
from pplr_audit.scenario.schema import Recformer
from tests.models.encoder_folder import CATALOGUE, load, save


class Here:
    """A model in this process, served."""

    def __init__(self, model: Any) -> None:
        self._model, self.tally = model, Tally()
        self.encoding: CatalogueEncoding | None = None

    @contextmanager
    def model(self, weights: Weights = "trained", *, catalogue: bool = False) -> Iterator[Any]:
        del weights, catalogue
        yield self._model


@pytest.mark.parametrize("together", [1, 2, 100])
def test_every_history_has_its_cosines_with_all_items(
    together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load(save(tmp_path))
    prompts = item_prompts(backbone.tokenizer, CATALOGUE, max_tokens=32, history=3)
    add_marks(backbone.model, 3)
    settings = Recformer()
    task = RecFormer(backbone.model.eval(), prompts, settings, rounds=1)
    monkeypatch.setattr(recformer, "SCORES", together * len(CATALOGUE))
    histories = ragged([[0, 1, 2], [2], [1, 0], [0], [2, 1]])
    served, scores = Here(backbone.model), np.full((5, 3), np.nan)
    for rows, some in task.recommend(served, histories, np.zeros(3)):
        assert len(rows) <= together
        scores[rows] = some
    points = task.encode(backbone.model, [prompts.build(histories[row]) for row in range(5)])
    expected = (points @ task.base_encoding[ITEMS].T).numpy() / settings.temperature
    assert scores == pytest.approx(expected, abs=1e-4)
    assert served.tally.requests == 5
    assert served.tally.prompt_positions >= prompts.lengths(histories).sum()
