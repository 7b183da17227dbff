"""An adversary's knowledge besides its view: the template, models to run, text to learn on, pairs, attributes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pplr_audit.data.prompts import Prompt, Prompts
from pplr_audit.data.samples import Samples
from pplr_audit.models.linears import Linear
from pplr_audit.models.rows import Rows
from pplr_audit.models.token_tree import Branches, Prefix
from pplr_audit.threat_model.artifacts import Artifacts, K, Source, Tensors, digest, digest_of_prompts
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.recipe import LocalSteps, Recipe


class Front(Protocol):
    """Embeddings and first blocks with weights of their own, whose adapter can be trained."""

    def __call__(self, prompts: Sequence[Prompt]) -> tuple[Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]]:
        """h_k of each prompt, padded on the right, and the mask of what is no padding; differentiable."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def requires_grad_(self, requires_grad: bool = True) -> Any: ...


class Model(Protocol):
    """A model that the adversary can run by itself."""

    @property
    def digest(self) -> str:
        """A hash of all that the model computes by: two with the same one are the same model."""
        ...

    def states(
        self, prompts: Sequence[Prompt], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """Yield each prompt's place and its h_l by l, for each of ``layers`` (from 0)."""
        ...

    @property
    def causal(self) -> bool:
        """True if a token is read without those behind it (a decoder), so that prefixes can be extended."""
        ...

    @property
    def heads(self) -> tuple[int, int]:
        """The heads of attention: those of queries, and those of keys and values."""
        ...

    def under(self, adapter: Mapping[str, Tensor]) -> "Model":
        """Return the same model with other trained tensors, all of them by name."""
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

    @property
    def linears(self) -> Mapping[str, Linear]:
        """The linear layers of which something is trained, by name, in the order in which they run."""
        ...

    @property
    def rows(self) -> Mapping[str, Rows]:
        """The trained tensors that have a row for each token or item, by name."""
        ...

    @property
    def adapter(self) -> Mapping[str, Tensor]:
        """The trained tensors by name, as this model has them."""
        ...

    def entering(
        self, prompts: Sequence[Prompt], modules: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "length width"]]]]:
        """Yield each prompt's place and what enters each of ``modules``, which are names of linear layers."""
        ...

    def entering_from(
        self, layer: int, hidden: Float[Tensor, "batch length hidden"], modules: Sequence[str]
    ) -> dict[str, Float[Tensor, "batch length width"]]:
        """Return what enters each of ``modules`` when ``hidden`` enters ``layer``, without padding."""
        ...

    def gradients(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Return the gradient of a batch's mean loss by each trained tensor, by name; nothing is dropped out."""
        ...

    def gradients_at(
        self, prompts: Sequence[Prompt], embeddings: Sequence[Float[Tensor, "length hidden"]]
    ) -> dict[str, Tensor]:
        """Return the same when ``embeddings`` stand in for those of the prompts' tokens; differentiable in them."""
        ...

    def trained(
        self, batches: Sequence[Sequence[Prompt]], recipe: Recipe, factors: Sequence[float], earlier: int = 0
    ) -> dict[str, Tensor]:
        """Return the update, before - after, that a client would send after a step on each of these batches.

        Nothing is dropped out. The optimizer begins without the moments of earlier rounds, which stay with a client.

        Args:
            factors: of the learning rate in each step.
            earlier: so many of the steps stand for earlier rounds; the update is that of the others.
        """
        ...


class Colluder(Protocol):
    """A client that hands the adversary prompts of its own users, and what crossed of them."""

    client: str
    prompts: Sequence[Prompt]

    @property
    def digest(self) -> str:
        """A hash of all that what crossed of the prompts follows from."""
        ...

    def states(
        self, places: Sequence[int], layers: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]:
        """Yield the same as `Model.states`, for the prompts at ``places``."""
        ...


When = Literal["start", "end"]
"""The ends of a client's local training in a round."""
Pair = tuple[Int[Tensor, "length"], dict[int, Float[Tensor, "length hidden"]]]
"""The tokens of a prompt, and h_l by l."""
States = Iterator[tuple[int, dict[int, Float[Tensor, "length hidden"]]]]


@dataclass(frozen=True)
class Pairs:
    """Pairs to learn the inversion of a front from, in two parts: to fit on, and to choose by."""

    prompts: tuple[Sequence[Prompt], Sequence[Prompt]]
    digest: str
    """A hash of the prompts and of what they are run through: by it all that is learned from the pairs is known."""
    states: Callable[[int, Sequence[int]], States]
    """Runs one of the parts and yields as `Model.states`, for the given layers."""

    def run(self, layers: Sequence[int]) -> tuple[Iterator[Pair], Iterator[Pair]]:
        """Return the pairs of both parts at ``layers``, in the order in which they are run."""
        first, second = (_paired(part, self.states(place, layers)) for place, part in enumerate(self.prompts))
        return first, second


@dataclass(frozen=True)
class Plaintext:
    """Public prompts, and what a client's front made of them when they crossed: known plaintext."""

    step: int
    """The local step before which they crossed; -1 in serving."""
    prompts: Sequence[Prompt]
    digest: str
    """A hash of all that what crossed follows from."""
    states: Callable[[Sequence[int]], States]
    """Yields as `Model.states`, for the given layers."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """An adversary's knowledge besides its view; everything here is public or was sent to it."""

    level: str
    """``front``: every client's model at the start of the round, as PPLR's server has it; ``own``: a client's own model
    before mixing, as a peer has it; ``base``: public weights;
    ``auxiliary``: no weights at all, only what a colluding client hands on."""
    prompts: Prompts
    """The template and the catalogue's titles as tokens."""
    embeddings: Float[Tensor, "vocab hidden"]
    """The input word embeddings of the base model, as its module makes them; of level ``auxiliary`` the adversary's own
    codes of the words."""
    base: Model
    copies: Mapping[tuple[str, int], Model]
    """Each client's model as it stood at the start of a round, by (client, round); empty for level ``base``. Of level
    ``own`` the peer's alone, as it was before mixing."""
    layers: tuple[int, ...]
    """Every front that this audit asks about, so that one pass can serve them all."""
    history: int
    """Most items in a prompt."""
    depth: int
    """Blocks of the model."""
    _: KW_ONLY
    clients: tuple[str, ...] = ()
    """Names of all clients, in alphabetical order."""
    recipe: Recipe | None = None
    """The public training section: optimizer, learning rate, weight decay, batch size, schedule."""
    steps: Mapping[tuple[str, int], LocalSteps] = field(default_factory=dict)
    """Local steps and samples of clients, by (client, round), as far as the adversary has them: a server set them, a
    trunk host sees them cross, a peer knows its own, an outsider none."""
    began: Mapping[tuple[str, int], Mapping[str, Tensor]] = field(default_factory=dict)
    """Models that the peers began a round with, as far as they hold them, by (client, round); empty for others."""
    expected_mixing: Mapping[int, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    """Weights that the peers expect after a round: round to receiver to client to the weight of the client's model in
    the receiver's new one. They follow from the public strategy and from the peers' models and losses; every other
    client is taken to be as the peers are on average. Empty for others."""
    loss_on: str = "title"
    """Tokens that are trained on, as the public scenario says: those of the answer (``title``), or ``all``."""
    queries: Mapping[int, Prompt] = field(default_factory=dict)
    """Prompts of the candidates for membership, by row; an adversary who queries a model puts these to it."""
    auxiliary: Literal["matched", "catalogue", "public", "none"] = "matched"
    """The text that it runs its copies on: histories of other users, random ones over the same catalogue or over
    another one, or none."""
    others: Samples | None = None
    """Text for ``matched``: one window of each user of the reserve, on whom no client trains; numbered anew."""
    elsewhere: Prompts | None = None
    """The template over that other catalogue."""
    colluder: Colluder | None = None
    """The colluding client, with what crossed of it in the view's own round; at level ``auxiliary`` only."""
    colluder_before: Mapping[int, Colluder] = field(default_factory=dict)
    """The same client with what crossed in earlier rounds, where the view has such, by round."""
    known_attributes: Mapping[int, str] = field(default_factory=dict)
    """Values of the attacked attribute, by row, for the users whose value is known in this turn. The attack guesses
    those of the others."""

    others_attributes: Sequence[str] = ()
    """Value of the attacked attribute of the user of each window of ``others``; empty where it is not known, or too
    rare to count as one."""
    ends: Mapping[tuple[str, int], Model] = field(default_factory=dict)
    """Each client's model as it stood at the end of its local training in a round, before mixing, by (client, round):
    the start of the round less the client's update. Empty for whoever is not sent updates."""
    plaintext: Callable[[str, int], Sequence[Plaintext]] | None = None
    """Answers as what the public catalogue crossed of a client in a round, each time; None where the adversary sees no
    such crossing, or no client encodes the catalogue."""
    artifacts: Artifacts = field(default_factory=Artifacts)
    """Fits that cells share, by what they follow from; see `fitted`."""

    _drawn: dict[tuple[int, int, int], tuple[tuple[Sequence[Prompt], Sequence[Prompt]], str]] = field(
        default_factory=dict
    )
    """Auxiliary prompts of `pairs` with their hash, so that they are not drawn again for every client and cell."""
    _used: dict[str, Any] = field(default_factory=dict, init=False)
    """Facts on what an attack used."""

    def copy(self, client: str, round_: int) -> Model:
        """The best copy of a client's model that the adversary has."""
        return self.copies.get((client, round_), self.base)

    def copies_of(self, client: str, round_: int) -> Mapping[When, Model]:
        """Return the copies that the adversary has of a client's model in a round, by when the model stood like that.

        In the first step of the round that of its start is exact, in the last ones that of its end is nearer. An attack
        takes the one that explains a record better, by what crossed alone, and says how often it took which.
        """
        end = self.ends.get((client, round_))
        return {"start": self.copy(client, round_), **({"end": end} if end is not None else {})}

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the finding besides the level: what the attack learned from, if anything."""
        return dict(self._used)

    def fitted(self, kind: str, source: Source, make: Callable[[], Tensors]) -> dict[str, Tensor]:
        """Return what ``make`` gives, or gave in another cell that asked for the same.

        Args:
            kind: name of such fits: small letters, digits and _.
            source: everything that the fit follows from, as JSON has it: settings, layer, round, `Model.digest`,
                `Pairs.digest`, `artifacts.digest` of tensors and arrays.

        Raises whatever ``make`` raises; that a budget was not enough for it is remembered.
        """

        def only(_: Sequence[str]) -> Iterable[tuple[str, Tensors]]:
            yield kind, make()

        return self.artifacts.fitted(kind, {kind: source}, only, kind)

    def fitted_together(
        self, kind: str, sources: Mapping[K, Source], make: Callable[[Sequence[K]], Iterable[tuple[K, Tensors]]],
        wanted: K,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return one of several fits that are cheaper to make at once, as `artifacts.Artifacts.fitted` does."""
        return self.artifacts.fitted(kind, sources, make, wanted)

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
        self._drew(count)
        return drawn

    def _drew(self, count: int) -> None:
        """Note what auxiliary text was used, and how much of it is of real users."""
        self._used["auxiliary"] = self.auxiliary
        if self.auxiliary == "matched":
            real = min(count, len(self.others) if self.others is not None else 0)
            for name, number in (("auxiliary_users", real), ("auxiliary_random", count - real)):
                self._used[name] = max(number, self._used.get(name, 0))

    def pairs(
        self, client: str, round_: int, count: int, held_out: int, seed: int, when: When = "start"
    ) -> Pairs:  # fmt: skip
        """Return pairs to learn the inversion of a client's front from: ``count`` to fit on, ``held_out`` to choose by.

        They are auxiliary prompts (`draw`) run through a copy of the client's model, the one of ``when``; or those of
        the colluding client, fewer where it has not so many. Nothing is run yet.

        Raises:
            NotApplicable: there is no auxiliary text, or the colluding client has less than two prompts.
        """
        colluder = self.colluder_before.get(round_, self.colluder)
        if colluder is not None:
            return self._colluded(colluder, count, held_out, seed)
        if (count, held_out, seed) not in self._drawn:
            drawn = self.draw(count + held_out, np.random.default_rng(seed))
            fit_on, choose_on = drawn[:count], drawn[count:]
            text = digest(digest_of_prompts(fit_on), digest_of_prompts(choose_on))
            self._drawn[count, held_out, seed] = (fit_on, choose_on), text
        self._drew(count + held_out)
        parts, text = self._drawn[count, held_out, seed]
        model = self.copies_of(client, round_)[when]
        return Pairs(parts, digest(text, model.digest), lambda part, layers: model.states(parts[part], layers))

    def _colluded(self, colluder: Colluder, count: int, held_out: int, seed: int) -> Pairs:
        own = colluder.prompts
        self._used["colluder"] = colluder.client
        if len(own) < 2:
            raise NotApplicable(f"{colluder.client}, who colludes, has {len(own)} prompts, and two are needed")
        held_out = min(held_out, max(1, len(own) // 5))
        order = [int(place) for place in np.random.default_rng(seed).permutation(len(own))][: count + held_out]
        places = order[held_out:], order[:held_out]
        prompts = [own[place] for place in places[0]], [own[place] for place in places[1]]
        text = digest(colluder.digest, *map(digest_of_prompts, prompts))
        return Pairs(prompts, text, lambda part, layers: colluder.states(places[part], layers))


def _paired(prompts: Sequence[Prompt], states: States) -> Iterator[Pair]:
    return ((torch.from_numpy(prompts[place].tokens), by_layer) for place, by_layer in states)
