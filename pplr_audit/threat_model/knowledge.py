"""An adversary's knowledge besides its view: the template, models to run, text to learn on, pairs, attributes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.samples import Samples
from pplr_audit.models.token_tree import Branches, Prefix
from pplr_audit.threat_model.outcomes import NotApplicable


class Front(Protocol):
    """Embeddings and first blocks with weights of their own, whose adapter can be trained."""

    def __call__(self, prompts: Sequence[Prompt]) -> tuple[Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]]:
        """h_k of each prompt, padded on the right, and the mask of what is no padding; differentiable."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


class Model(Protocol):
    """A model that the adversary can run by itself."""

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """Yield each prompt's place and its h_l by l, for each of ``layers`` (from 0)."""
        ...

    @property
    def causal(self) -> bool:
        """True if a token is read without those behind it (a decoder), so that prefixes can be extended."""
        ...

    def extend(
        self, prefix: Prefix, tokens: Int[np.ndarray, "nodes"], parents: Sequence[int], layers: Sequence[int]
    ) -> Branches:
        """Return h_l at each of ``layers`` for a tree of tokens behind ``prefix``, of a causal model; each node has an
        earlier one as parent, or -1 where it follows the prefix. The prefix was read by this model, as deep at least.
        """
        ...

    def log_probs(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, "answer"]]:
        """log-probability of each token of each prompt's answer."""
        ...

    def enter(
        self, layer: int, embeddings: Float[Tensor, "batch length hidden"], mask: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        """Return h_l at ``layer`` when ``embeddings`` stand in for the tokens' embeddings; differentiable."""
        ...

    def logits(self, layer: int, hidden: Float[Tensor, "batch length hidden"]) -> Float[Tensor, "batch *answers"]:
        """Return the logits when ``hidden`` enters ``layer`` (L: the end of all blocks); differentiable.

        Of the next token at every position (batch, length, vocab), or, where a sequence is answered by one item, of
        the catalogue (batch, items).
        """
        ...

    def front(self, layer: int) -> Front:
        """A copy of the embeddings and the first ``layer`` blocks."""
        ...


class Colluder(Protocol):
    """A client that hands the adversary prompts of its own users, and what crossed of them."""

    client: str
    prompts: Sequence[Prompt]

    def states(
        self, places: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """Yield the same as `Model.states`, for the prompts at ``places``."""
        ...


Pair = tuple[Int[Tensor, "length"], dict[int, Float[Tensor, "length hidden"]]]
"""The tokens of a prompt, and h_l by l."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """An adversary's knowledge besides its view; everything here is public or was sent to it."""

    level: str
    """``front``: every client's model at the start of the round, as PPLR's server has it; ``base``: public weights;
    ``auxiliary``: no weights at all, only what a colluding client hands on."""
    prompts: Prompts
    """The template and the catalogue's titles as tokens."""
    embeddings: Float[Tensor, "vocab hidden"]
    """The input word embeddings of the base model, as its module makes them; of level ``auxiliary`` the adversary's own
    codes of the words."""
    base: Model
    copies: Mapping[tuple[str, int], Model]
    """Each client's model as it stood at the start of a round, by (client, round); empty for level ``base``."""
    layers: tuple[int, ...]
    """Every front that this audit asks about, so that one pass can serve them all."""
    history: int
    """Most items in a prompt."""
    depth: int
    """Blocks of the model."""
    _: KW_ONLY
    loss_on: str = "title"
    """Tokens that are trained on, as the public scenario says: those of the answer (``title``), or ``all``."""
    queries: Mapping[int, Prompt] = field(default_factory=dict)
    """Queries of an adversary who queries a model, by row."""
    auxiliary: Literal["matched", "catalogue", "public", "none"] = "matched"
    """The text that it runs its copies on: histories of other users, random ones over the same catalogue or over
    another one, or none."""
    others: Samples | None = None
    """Text for ``matched``: one window of each user of the reserve, on whom no client trains; numbered anew."""
    elsewhere: Prompts | None = None
    """The template over that other catalogue."""
    colluder: Colluder | None = None
    """The colluding client; at level ``auxiliary`` only."""
    known_attributes: Mapping[int, str] = field(default_factory=dict)
    """Values of the attacked attribute, by row, for the users whose value is known in this turn. The attack guesses
    those of the others."""

    _used: dict[str, Any] = field(default_factory=dict, init=False)
    """Facts on what an attack used."""

    def copy(self, client: str, round_: int) -> Model:
        """The best copy of a client's model that the adversary has."""
        return self.copies.get((client, round_), self.base)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the finding besides the level: what the attack learned from, if anything."""
        return dict(self._used)

    def source(self, client: str, round_: int) -> tuple[str, int]:
        """Return the source of a client's `pairs`: clients with the same source share them and all that is learned from
        them.
        """
        if self.colluder is not None:
            return self.colluder.client, round_
        return (client, round_) if (client, round_) in self.copies else ("", 0)

    def draw(self, count: int, generator: np.random.Generator) -> list[Prompt]:
        """``count`` auxiliary prompts, with a label as training prompts have one.

        Of ``matched`` they are of other users, none of them twice; where these are fewer than ``count``, all of them
        among prompts over random items. `facts` says how many of each the largest draw had. A random item is each of
        the catalogue as likely as any other.

        Raises:
            NotApplicable: the adversary has no such text.
        """
        text = self.elsewhere if self.auxiliary == "public" else self.prompts
        if self.auxiliary == "none" or text is None:
            raise NotApplicable("this attack learns from auxiliary text, and the adversary has none")
        windows = self.others if self.auxiliary == "matched" else None
        users = len(windows) if windows is not None else 0
        places = generator.permutation(max(count, users))[:count] if users else np.zeros(count, dtype=np.int64)
        drawn = [
            text.build(windows.history[place], int(windows.targets[place]))
            if windows is not None and place < users
            else text.random(self.history, generator)
            for place in places
        ]
        self._used["auxiliary"] = self.auxiliary
        if self.auxiliary == "matched":
            real = min(count, users)
            for name, number in (("auxiliary_users", real), ("auxiliary_random", count - real)):
                self._used[name] = max(number, self._used.get(name, 0))
        return drawn

    def pairs(
        self, client: str, round_: int, layers: Sequence[int], count: int, held_out: int, seed: int
    ) -> tuple[Iterator[Pair], Iterator[Pair]]:
        """Return pairs to learn the inversion of a client's front from: ``count`` to fit on, ``held_out`` to choose by.

        They are auxiliary prompts (`draw`) run through the best copy of the client's model; or those of the colluding
        client, fewer where it has not so many.

        Raises:
            NotApplicable: there is no auxiliary text, or the colluding client has less than two prompts.
        """
        generator = np.random.default_rng(seed)
        if self.colluder is not None:
            own = self.colluder.prompts
            self._used["colluder"] = self.colluder.client
            if len(own) < 2:
                raise NotApplicable(f"{self.colluder.client}, who colludes, has {len(own)} prompts, and two are needed")
            held_out = min(held_out, max(1, len(own) // 5))
            order = [int(place) for place in generator.permutation(len(own))][: count + held_out]
            prompts = [own[place] for place in order]
            held, fit = (self.colluder.states(part, layers) for part in (order[:held_out], order[held_out:]))
            return _paired(prompts[held_out:], fit), _paired(prompts[:held_out], held)
        drawn = self.draw(count + held_out, generator)
        fit_on, choose_on, model = drawn[:count], drawn[count:], self.copy(client, round_)
        return _paired(fit_on, model.states(fit_on, layers)), _paired(choose_on, model.states(choose_on, layers))


def _paired(
    prompts: Sequence[Prompt], states: Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]
) -> Iterator[Pair]:
    return ((torch.from_numpy(prompts[place].tokens), by_layer) for place, by_layer in states)
