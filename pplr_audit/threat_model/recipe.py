"""Local training as far as it is known to those who see no data: the public recipe, and the steps of each client."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The public training section."""

    strategy: str
    rounds: int
    local_epochs: int
    batch_size: int
    optimizer: str
    """adamw or sgd."""
    learning_rate: float
    weight_decay: float
    schedule: str
    warmup: float
    averaging: str


@dataclass(frozen=True)
class LocalSteps:
    """The local steps of one client's shared model in one round."""

    samples: int
    """Training samples of the client."""
    factors: tuple[float, ...]
    """Factor of the learning rate in each step, as the schedule has it."""
    batches: tuple[int, ...] = ()
    """Samples in each step, for whoever sees the batches cross; else empty."""

    @property
    def steps(self) -> int:
        """Number of local steps."""
        return len(self.factors)
