"""The threat model as types: who sees what, and how an attack answers. What it knows besides is in `knowledge`.

An attack is handed a `View` and `Knowledge` and nothing else. Rows are numbered without meaning; which user a row
belongs to, and what is true of it, stands in another object that attacks are never handed.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit.threat_model.adversaries import Secret
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import BudgetExhausted
from pplr_audit.threat_model.view import View


class Budget:
    """A ceiling on the seconds of one cell, from now on: it ends an attack without a value, and never with another one.

    How much an attack tries is counted in units of its own (candidates, steps, prompts), by its settings. So what it
    finds is the same on every machine that is fast enough.

    Args:
        grace: how many times as long it may take before it is broken off.
    """

    def __init__(self, seconds: float, grace: float = 1.0) -> None:
        self.seconds = seconds
        self._start = time.monotonic()
        self._last = self._start + grace * seconds

    def check(self, done: int = 0, of: int = 0) -> None:
        """Raises BudgetExhausted once the time is up. Attacks call it between rows, of which ``done`` are finished."""
        now = time.monotonic()
        if now <= self._last:
            return
        reason = f"more than {self._last - self._start:g} s"
        if done:
            about = math.ceil((now - self._start) * of / done)
            reason += (
                f": {done} of {of} rows were finished; about {about} s would do for all (audit.budget.seconds), or"
                " fewer audit.victims"
            )
        raise BudgetExhausted(reason)


@dataclass(frozen=True)
class Guess:
    """An attack's answer, sealed before the truth is opened.

    For ``history``: ``rows``, ``token_offsets`` and ``tokens`` (one guess a position, -1 for none), ``slot_offsets``
    and ``items`` (slots, depth): the best items of the whole catalogue for each slot, oldest slot first; and
    ``claimed``, one a token: True where the attack takes the token for a word of a title in the history, False where
    it takes it for the template or for the answer. ROUGE is scored on the claimed tokens, so that wrong words count
    wherever they stand. An answer without ``claimed`` claims every token that is not -1.
    For ``label``: ``rows`` and ``labels`` (rows, depth): the best items of the whole catalogue for each row, the best
    first, -1 where there are fewer. An answer may hold several of these; each is scored where the truth is known.
    For ``membership``: ``rows`` and one score a row under the name of each mode; higher means member.
    For ``attribute``: ``rows`` and ``values`` (rows, values): a score for each of the known values, in alphabetical
    order, higher where it is the likelier. It runs in turns (`Knowledge.known_attributes`): in each, rows of known
    value are passed over, and nothing else of the answer is kept.
    For ``items``: ``rows``, and any of ``ranked_items`` with ``item_offsets`` (rows + 1), ``ranked_tokens`` with
    ``token_offsets``: for each row all that it is taken to hold, the likeliest first; and of sequences that were read
    whole ``sequence_places`` (place in ``rows`` of each), ``sequence_tokens`` with ``sequence_offsets``: the tokens of
    titles, in order. No place says which sequence is whose.
    For ``targets``: as ``items``, of the items that samples were trained to answer with.
    For ``owner``: ``rows`` and ``owners`` (rows, clients): a score for each of `Knowledge.clients`, higher where it is
    the likelier.
    For ``recommendation``: ``rows`` and ``recommended`` (rows, depth), as ``labels``.
    For ``linkage``: ``rows``, and for pairs of rows ``first``, ``second`` (row numbers) and ``scores``, higher where
    the two are the likelier of one user; pairs within a client are enough.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts for the report on how the answer was found; never scored."""


class Attack(Protocol):
    """Parameters in, one verb, a guess out. One that reads several channels names the others in `also_reads`; one that
    reads what crosses once a round of all audited rounds together says ``rounds = "all"``.
    """

    name: str
    secret: Secret
    """The question that it answers, of `questions.QUESTIONS`."""
    channels: frozenset[Channel]
    """The channels it can read, one at a time."""
    controls: int
    """Number of runs of the negative control (more for a score that is noisy over a shuffle)."""

    def run(self, view: View[Any], knowledge: Knowledge, budget: Budget) -> Guess:
        """Raises NotApplicable or BudgetExhausted; any other error is reported as ``failed``."""
        ...


def also_reads(attack: Attack) -> frozenset[Channel]:
    """The channels that an attack needs besides the one it reads, of the same steps (`Record.also_reads`)."""
    return frozenset(getattr(attack, "also_reads", ()))


def reads_traffic(attack: Attack) -> bool:
    """True if an attack learns from all that crossed, without labels (`traffic`), not from the victims' rows alone."""
    return bool(getattr(attack, "traffic", False))


def reads_every_crossing(attack: Attack) -> bool:
    """True if an attack reads all crossings of a row (`every_crossing`); others are given the first one of the round.

    In the last audited round these are also those of earlier audited rounds, behind those of the round itself.
    """
    return bool(getattr(attack, "every_crossing", False))


def reads_all_rounds(attack: Attack) -> bool:
    """True if an attack reads what crosses once a round of all audited rounds together; others read round by round."""
    return getattr(attack, "rounds", "each") == "all"


def steps_read(attack: Attack) -> int:
    """Return the number of local steps of a round of which an attack on ``trunk_update`` reads the gradients, one
    `Update` each (`local_steps`); 0 of one that reads what the trunk changed by in the whole round.
    """
    return int(getattr(attack, "local_steps", 0))


def runs_copies(attack: Attack) -> bool:
    """True if an attack runs copies of clients' models (`copies`); others need no more than ``base``."""
    return bool(getattr(attack, "copies", True))


def attribute_of(attack: Attack) -> tuple[str, int]:
    """Return the attribute that an attack is after (`attribute`), and the number of folds of users (`folds`)."""
    return str(getattr(attack, "attribute", "")), int(getattr(attack, "folds", 5))


GradientCrafter = Callable[
    [Float[Tensor, "batch seq hidden"], Int[Tensor, "batch seq"]], Float[Tensor, "batch seq hidden"]
]
"""Function from what a client sent in a training step, h_k and its mask, to the gradient that is sent back."""


class Active(Attack, Protocol):
    """An attack by a server that also chooses what it sends, which takes a training of its own at every cut.

    It is one of `CraftsGradients` and `CraftsStart`: what the server sends back in each step, or at a round's start.
    """

    active: Literal[True]


class CraftsGradients(Active, Protocol):
    """Its `run` gets what crossed of the victims in the last round of that training, and the same knowledge."""

    def craft_gradient(self, knowledge: Knowledge, front: int, budget: Budget) -> GradientCrafter:
        """Return the gradient that the server sends in place of dLoss/dh_k; called before the training, at cut k =
        ``front``.
        """
        ...


class CraftsStart(Active, Protocol):
    """Its `run` gets the updates of the last round, which clients began with what it made; `Update.start` has that.

    The knowledge is the same both times: its copies are the models that would have been sent.
    """

    def craft_start(
        self, client: str, round_: int, start: Mapping[str, Tensor], knowledge: Knowledge, budget: Budget
    ) -> Mapping[str, Tensor]:
        """Return the model that the server sends to a client at the start of a round.

        Args:
            start: the tensors that an honest server would send, by name: the client's part at this cut. The answer has
                the same names, shapes and types, and all of it is finite.
        """
        ...


def as_active(attack: Attack) -> Active | None:
    """The attack, if it is one by a server that chooses what it sends."""
    return cast(Active, attack) if getattr(attack, "active", False) else None


def crafts_start(attack: Attack) -> CraftsStart | None:
    """The attack, if it chooses what clients are sent at the start of a round."""
    return cast(CraftsStart, attack) if as_active(attack) and hasattr(attack, "craft_start") else None


def crafts_gradients(attack: Attack) -> CraftsGradients | None:
    """The attack, if it chooses what clients are sent back in each step."""
    return cast(CraftsGradients, attack) if as_active(attack) and not crafts_start(attack) else None
