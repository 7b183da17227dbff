"""Tests of an update's spans: of which layers it says something, and how their inputs follow from the text.

What enters a layer is taken from the model, so that grouped queries, biases, norms of queries and keys, fused layers
and both kinds of norms need no case of their own. Two kinds of inputs can be tried one candidate at a time: those that
follow from a token and its place alone, as in the first block, and those that follow from h_l at the same place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.attacks.update.directions import Directions
from pplr_audit.attacks.update.first_inputs import text
from pplr_audit.attacks.update.spectrum import Span, span
from pplr_audit.threat_model.knowledge import Model

SINGLE = torch.finfo(torch.float32).eps
"""Clients compute in single precision, whatever an update is stored in."""


@dataclass(frozen=True)
class Check:
    """One span, and the layer whose inputs lie in it."""

    directions: Directions
    span: Span

    @property
    def module(self) -> str:
        """Name of a layer that reads the inputs."""
        return self.directions.layers[0].name

    def log_odds(self, inputs: Float[Tensor, "*many inputs"]) -> Float[Tensor, "*many"]:
        """Return how much likelier each input is among those that the update was computed on than not."""
        return self.span.log_odds(self.directions.placed(inputs.double()))


def checks(found: Sequence[Directions], model: Model, most: int) -> dict[int, tuple[Check, ...]]:
    """Return tests of inputs that follow from h_l at one place, by layer l: of the first ``most`` layers above 0.

    Layer 0 is among them if its inputs can be tried; they follow from a token and its place. A layer that has less than
    half as many directions as layer 0 sees some places only, and a true text would fail there: as the last block does
    where the loss is on one token, which gives the queries one direction a text and keys and values one for each head.
    """
    chosen: dict[int, tuple[Check, ...]] = {}
    for layer in sorted({each.block for each in found if each.block >= 0}):
        if len(chosen.keys() - {0}) == most:
            break
        own = [each for each in found if each.block == layer and _follows(model, layer, each.layers[0].name)]
        tests = tuple(Check(each, span(each.rows, SINGLE)) for each in own)
        enough = max((test.span.rank for test in chosen.get(0, ())), default=0) / 2
        seeing = tuple(test for test in tests if test.span.rank >= enough or not test.span.whole)
        if seeing:
            chosen[layer] = seeing
    return chosen


def odds_behind(
    model: Model, checked: Mapping[int, Sequence[Check]], states: Mapping[int, Float[Tensor, "places hidden"]]
) -> Float[Tensor, "places"]:
    """Return the summed log-odds of states at each layer of ``checked`` above 0."""
    total = torch.zeros(1, dtype=torch.float64)
    for layer, own in checked.items():
        if layer:
            seen = model.entering_from(layer, states[layer][:, None], [each.module for each in own])
            total = total + sum((each.log_odds(seen[each.module][:, 0]) for each in own), torch.zeros(1))
    return total


def _follows(model: Model, layer: int, module: str) -> bool:
    """True if what enters ``module`` at a place follows from h_l at this place, whatever stands around it."""
    ((_, states),) = model.states([text([0, 1, 2])], [layer])
    hidden = states[layer][None]
    other = hidden.flip(1) + 1.0
    other[:, 1] = hidden[:, 1]
    one, two = (model.entering_from(layer, each, [module])[module][:, 1] for each in (hidden, other))
    return torch.allclose(one, two, rtol=1e-4, atol=1e-6)
