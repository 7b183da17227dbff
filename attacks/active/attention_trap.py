"""An adapter that makes each head of the first block look at one word of a sequence, the one furthest in a direction.

With LoRA a server chooses W = W0 + s B A of a client's queries, keys and values. Here a head gets

    query(x) = q (m x) e,    key(x) = q (a x) e,    with e the head's last number, which turns least in rotary positions

beside what W0 makes. m x is about 1 for every input, and q is so large that the softmax gives all weight to the word
with the largest a x (or the smallest, where m x is negative). So of a whole sequence one word reaches this head's
values, and only this word's x is in their gradient. Values get A = 0 and, for head j, B with one direction of its
outputs in column j alone: W is as it was, and row j of A's gradient,

    s b_jᵀ D_jᵀ X = sum over sequences of (s b_j d) x_selected,

holds nothing but the inputs that head j has selected. What a batch of thousands of words mixes is thereby parted.

Weights that a server plants so that single inputs stay apart in a gradient: Boenisch et al., *When the Curious Abandon
Honesty* (arXiv 2112.02918, trap weights); Fowl et al., *Robbing the Fed* (arXiv 2110.13057); attention bent for it:
Fowl et al., *Decepticons* (arXiv 2201.12675). That LoRA's few rows of the queries, keys and values are enough for it is
of this project.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pplr_audit.data.prompts import Prompt
from pplr_audit.models.linears import Given, Linear
from pplr_audit.threat_model.knowledge import Model
from pplr_audit.threat_model.outcomes import NotApplicable

SHARPNESS = 1000.0
"""Score that a word one standard deviation further in a direction has more: far beyond what a softmax lets through."""
RIDGE = 1e-3
"""Share of the mean variance that is added to all directions."""


@dataclass(frozen=True)
class Projection:
    """Queries, keys or values of the first block: outputs of a layer with LoRA, and the rows of A that are theirs."""

    linear: Linear
    first: int
    """The first of their outputs."""
    heads: int
    width: int
    """Outputs of a head."""
    rows: range

    def outputs(self, head: int) -> slice:
        start = self.first + head * self.width
        return slice(start, start + self.width)


Projections = Mapping[Given, Projection]


def projections(model: Model) -> Projections:
    """Return the trained projections of the first block. Raises NotApplicable where these are not enough for a trap."""
    of_queries, of_keys = model.heads
    found: dict[Given, Projection] = {}
    for linear in model.linears.values():
        if linear.block != 0 or not linear.lora_a or not linear.gives:
            continue
        heads = {"queries": of_queries, "keys": of_keys, "values": of_keys}
        width = linear.outputs // sum(heads[each] for each in linear.gives)
        rank = int(model.adapter[linear.lora_a].shape[0])
        together = len(linear.gives) > 1  # then they share the rows of one A: one for all queries
        half = (rank - 1) // 2
        rows = {"queries": range(1), "keys": range(1, 1 + half), "values": range(1 + half, 1 + 2 * half)}
        first = 0
        for each in linear.gives:
            found[each] = Projection(linear, first, heads[each], width, rows[each] if together else range(rank))
            first += heads[each] * width
    if "values" not in found or not found.keys() & {"queries", "keys"} or not all(p.rows for p in found.values()):
        trained = ", ".join(sorted(found)) or "none"
        raise NotApplicable(
            "a trap takes LoRA on the values of the first block and on its queries or keys, with rank 3 where one layer"
            f" gives them all; trained there: {trained}"
        )
    return found


def traps(parts: Projections) -> int:
    """Return the number of heads that a trap is set in."""
    return min(parts["values"].heads, *(len(parts[each].rows) for each in ("keys", "values") if each in parts))


def directions_of(
    inputs: Float[Tensor, "many width"], count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "width"], Float[Tensor, "count width"]]:
    """Return m, by which every input is about 1, and directions in which usual inputs vary by 1, none like another."""
    moments = inputs.T @ inputs / len(inputs)
    moments += RIDGE * moments.diagonal().mean() * torch.eye(len(moments)).to(moments)
    level = torch.linalg.solve(moments, inputs.mean(0))
    level = level / (inputs @ level).mean().clamp(min=1e-6)
    values, vectors = torch.linalg.eigh(moments)
    drawn = torch.randn(inputs.shape[1], count, generator=generator, dtype=inputs.dtype)
    turned = torch.linalg.qr(drawn).Q.T
    return level, (turned / values.sqrt()) @ vectors.T


def trapped(
    adapter: Mapping[str, Tensor], parts: Projections, level: Float[Tensor, "width"],
    along: Float[Tensor, "traps width"], into: Sequence[Float[Tensor, "outputs"]],
) -> dict[str, Tensor]:  # fmt: skip
    """Return an adapter with traps in the first block; what else it trains stays as it is.

    Args:
        along: direction in which each head looks for the furthest word.
        into: of each of these heads the direction of its values that a word's input is weighted by.
    """
    found = dict(adapter)
    for part in parts.values():
        for name in (part.linear.lora_a, part.linear.lora_b):
            found[name] = torch.zeros_like(adapter[name])
    values = parts["values"]
    size = math.sqrt(SHARPNESS * math.sqrt(values.width))
    for head in range(len(along)):
        if "queries" in parts:
            part = parts["queries"]
            share = part.heads // values.heads
            found[part.linear.lora_a][part.rows[0]] = level.to(adapter[part.linear.lora_a])
            for own in range(head * share, (head + 1) * share):
                _last(found, part, own)[part.rows[0]] = size / part.linear.scale
        if "keys" in parts:
            part = parts["keys"]
            found[part.linear.lora_a][part.rows[head]] = along[head].to(adapter[part.linear.lora_a])
            _last(found, part, head)[part.rows[head]] = size / part.linear.scale
        found[values.linear.lora_b][values.outputs(head), values.rows[head]] = into[head].to(
            adapter[values.linear.lora_b]
        )
    if not {"queries", "keys"} <= parts.keys():  # the other one is as W0 makes it
        alone = parts.get("queries", parts.get("keys"))
        assert alone is not None
        found[alone.linear.lora_b] *= size
    return found


def _last(found: Mapping[str, Tensor], part: Projection, head: int) -> Float[Tensor, "rank"]:
    """The row of B that makes a head's last number."""
    return found[part.linear.lora_b][part.outputs(head).stop - 1]


def steepest(
    model: Model, parts: Projections, level: Float[Tensor, "width"], along: Float[Tensor, "traps width"],
    prompts: Sequence[Prompt],
) -> list[Float[Tensor, "outputs"]]:  # fmt: skip
    """Return the direction of each head's values in which the loss of prompts is steepest, under the traps.

    With A = m and B = 0 the gradient of B is s Dᵀ X mᵀ, about the sum of D over words.
    """
    values = parts["values"]
    flat = [torch.zeros(values.width) for _ in along]
    adapter = trapped(model.adapter, parts, level, along, flat)
    adapter[values.linear.lora_a][values.rows[0]] = level.to(adapter[values.linear.lora_a])
    under = model.under(adapter)
    seen = [under.gradients([prompt])[values.linear.lora_b][:, values.rows[0]] for prompt in prompts]
    stacked = torch.stack(seen).double()
    found = []
    for head in range(len(along)):
        _, _, vectors = torch.linalg.svd(stacked[:, values.outputs(head)], full_matrices=False)
        found.append(vectors[0])
    return found
