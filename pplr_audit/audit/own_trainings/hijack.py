"""A server that answers clients in training with gradients of its own choice, and the training under it.

The training is a value of the plan, as every other: its folder holds its rounds, and what crossed of the victims in the
last of them. The server's own network is not stored, so one that was killed begins again.

It gets what crosses, as any `Host` does, and keeps to the protocol otherwise: its trunk learns from what comes back, it
balances, and it serves. Only what goes down as dLoss/dh_k is another.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from pplr_audit import scenario
from pplr_audit.audit.cell import Cell
from pplr_audit.data.prepare import PrivateData
from pplr_audit.errors import RunError
from pplr_audit.models.architectures import blocks
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.cut import CutModel
from pplr_audit.models.precision import Precision
from pplr_audit.models.recommenders.recformer import feeds_blocks
from pplr_audit.scenario import plugins
from pplr_audit.threat_model.attack import GradientCrafter
from pplr_audit.threat_model.outcomes import BudgetExhausted, Failed, NotApplicable
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.defending import compose
from pplr_audit.training.rounds import Federation, RoundLog, RoundState, assemble, train
from pplr_audit.training.server import Server
from pplr_audit.training.side_by_side import allowed
from pplr_audit.training.spec import Hijack, TrainingSpec
from pplr_audit.training.strategies.protocol import Strategy


class HijackingServer(Server):
    """A server whose clients are sent what ``crafter`` makes of what they sent."""

    def __init__(self, *args: Any, crafter: GradientCrafter, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._crafter = crafter
        self._crossed: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(
        self, client: str, step: int, hidden: Float[Tensor, "batch seq hidden"], mask: Int[Tensor, "batch seq"],
        pass_: int = 0,
    ) -> Float[Tensor, "batch seq hidden"]:  # fmt: skip
        self._crossed[pass_] = hidden.detach(), mask
        return super().forward(client, step, hidden, mask, pass_)

    def backward(
        self, gradient: Float[Tensor, "batch seq hidden"], pass_: int = 0
    ) -> Float[Tensor, "batch seq hidden"]:
        super().backward(gradient, pass_)
        return self._crafter(*self._crossed.pop(pass_))


def hijackable(
    setting: scenario.Scenario, private: PrivateData, front: int, layers: int, precision: Precision
) -> tuple[Recommender, scenario.Training]:
    """The scenario's model cut after ``front`` of its ``layers`` blocks, and its training, in which nobody stops early.

    The back is the scenario's own, or 0 where that would leave no trunk. ``precision`` is what the run computes in.

    Raises:
        NotApplicable: nothing before the cut is trained.
    """
    back = setting.model.cut.back if front + setting.model.cut.back < layers else 0
    chosen = setting.model.model_copy(update={"cut": scenario.Cut(front=front, back=back), "precision": precision})
    training = setting.training.model_copy(update={"patience": None})
    catalogue = private.dataset.catalogue
    model = build(chosen, catalogue, history=setting.data.history, seed=setting.seed, training=training)
    if not _can_be_pulled(model.parts):
        raise NotApplicable("nothing before this cut is trained, so what is sent back moves nothing")
    return model, training


def hijacked_by(cell: Cell, own: TrainingSpec, auxiliary: str) -> TrainingSpec:
    """Return the training that a cell's attack hijacks in the place of the one that the cell is about.

    Args:
        auxiliary: the text that the attack learns on.
    """
    assert cell.front is not None
    return replace(own, hijack=Hijack(cell.attack, cell.settings, cell.front, cell.knowledge, auxiliary, cell.back))


def hijacked(
    spec: TrainingSpec,
    private: PrivateData,
    model: Recommender,
    training: scenario.Training,
    crafter: GradientCrafter,
    files: TrainingFiles,
    *,
    seed: int,
) -> tuple[Federation, RoundState]:
    """A federation after all rounds but the last under a `HijackingServer`, and what the last one starts from.

    Args:
        spec: says which defenses are in force.
        files: of the hijacked training, where each round is put away.

    Raises:
        RunError: a client broke off, as its loss or its weights are no longer finite.
    """
    strategy: Strategy = plugins.load("strategies", training.strategy)(training)
    federation = assemble(
        private.samples, model, training, strategy, seed=seed,
        defenses=compose(spec.defenses, training), kind=partial(HijackingServer, crafter=crafter),
    )  # fmt: skip
    newest = federation.state(1)
    files.save_state(newest)

    def done(log: RoundLog, state: RoundState) -> None:
        nonlocal newest
        files.save(log, newest := state)

    train(federation, training.rounds - 1, done=done)
    return federation, newest


def _can_be_pulled(parts: CutModel) -> bool:
    """True if anything before the cut is trained, so that a gradient sent back can move it."""
    near: Sequence[Any] = list(blocks(parts.client))[: parts.front]
    return feeds_blocks(parts.client) or any(p.requires_grad for block in near for p in block.parameters())


@contextmanager
def failing_apart() -> Iterator[None]:
    """The attack is anybody's, and clients break off where their training explodes: such a cell has failed, alone.

    Its server learns from each client in turn, so that no client can train beside another.
    """
    try:
        with allowed(1):
            yield
    except (NotApplicable, BudgetExhausted):
        raise
    except Exception as error:
        if isinstance(error, RunError) and isinstance(error.__cause__, OSError):  # a full disk stops everyone
            raise
        raise Failed(f"in the training that it hijacks: {type(error).__name__}: {error}") from error
