"""The authors' DAGER on the same gradients: their functions for ranks, spans and search, from a checkout of their code.

Their model wrapper loads weights from a hub and copies a forward pass of an older library. In its place stands one that
asks our model for the same values: what enters the first block by place, and what enters the second one by sequence.
Their thresholds are their defaults, the tolerance of ranks is what their README names for each size of batch.
"""

import contextlib
import io
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

LAYERS, CUTOFF, FIRST, SECOND, DISTINCT = 2, 20, 1e-5, 1e-3, 0.7
"""Their defaults: layers read, directions left free, the two thresholds on distances, and likeness of sequences."""


class Reference:
    """The authors' functions, imported from a folder."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        functions = import_module("utils.functional")
        self._search = import_module("utils.filtering_decoder").filter_decoder
        self._span, self._inside = functions.get_layer_decomp, functions.get_top_B_in_span

    def run(self, model: Any, update: dict[str, Tensor], tokens: Tensor) -> tuple[float, float, float]:
        """Return seconds from gradients to sequences, those of processors, and the share of sequences read whole."""
        batch = len(tokens)
        tolerance = 1e-7 if batch <= 2 else 1e-8 if batch <= 16 else 1e-9
        chosen = SimpleNamespace(
            pad="right", device="cpu", dist_norm="l2", defense_noise=None, batch_size=batch, parallel=1000,
            l2_span_thresh=SECOND, distinct_thresh=DISTINCT, reduce_incorrect=0, n_layers=LAYERS,
        )  # fmt: skip
        started, busy = time.perf_counter(), time.process_time()
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            spans = self._spans([*update.values()], tolerance)
            wrapper = _Wrapper(model)
            likely: list[list[int]] = []
            while len(likely) < tokens.shape[1]:  # the longest length is told to both sides
                _, ids = self._inside(spans[0], wrapper.entering(len(likely)), batch, FIRST, "l2")
                if not len(ids):
                    break
                likely.append(ids.tolist())
            named: Sequence[Sequence[int]] = self._search(chosen, wrapper, spans, likely)[0] if likely else []
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        found = {tuple(int(token) for token in each) for each in named}
        return seconds, busy, sum(tuple(row) in found for row in tokens.tolist()) / batch

    def _spans(self, update: list[Tensor], tolerance: float) -> list[Tensor]:
        """Return bases of the first two layers: of the rank that is the largest of the first ten."""
        ranks = [int(torch.linalg.matrix_rank(each.T, tol=tolerance)) for each in update[:10]]
        rank = min(max(ranks), len(update[0]) - CUTOFF)
        return [self._span(each.T, B=rank, tol=tolerance)[1] for each in update[:LAYERS]]


class _Wrapper:
    """Answers what the authors' search asks of a model of GPT-2's kind."""

    pad_token, start_token = -1, None

    def __init__(self, model: Any) -> None:
        self._body = model.transformer

    def entering(self, place: int) -> Tensor:
        """Return what enters the first block's attention for every word at a place, (1, vocab, hidden)."""
        words: Tensor = self._body.wte.weight + self._body.wpe.weight[place]
        normed: Tensor = self._body.h[0].ln_1(words)[None]
        return normed

    def get_layer_inputs(
        self, sentences: Tensor, attention_mask: Tensor | None = None, layers: int = 1
    ) -> list[Tensor]:
        """Return what enters the second block's attention, (batch, length, hidden)."""
        del attention_mask, layers
        body = self._body
        hidden = body.wte(sentences.long()) + body.wpe.weight[: sentences.shape[1]]
        after = body.h[0](hidden)
        after = after[0] if isinstance(after, tuple) else after
        return [body.h[1].ln_1(after)]

    def has_rope(self) -> bool:
        return False

    def has_bos(self) -> bool:
        return False
