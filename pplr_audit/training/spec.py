"""One training as a value: all that its outcome depends on. Its digest is its name, and its folder is called after it.

A run's own training, its rivals, further seeds, defended and hijacked trainings are all such values in one plan.
"""

import json
import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

from pplr_audit.scenario import rivals
from pplr_audit.scenario.compositions import NONE, Composition, canonical, flat
from pplr_audit.scenario.plugins import Kind, name_and_settings
from pplr_audit.scenario.schema import Cut, Data, Model, Scenario, Training
from pplr_audit.scenario.yaml_reader import text_of

_AT_MOST = 40
"""Characters of a part of a name."""


@dataclass(frozen=True)
class Hijack:
    """A server that chooses what it sends: an attack, at one front, with what it knows."""

    attack: str
    settings: str
    """The attack's settings as canonical JSON."""
    front: int
    knowledge: str
    """Level of knowledge that what is sent is made with."""
    auxiliary: str
    """Text that it is made with (``audit.auxiliary``)."""
    back: int | None = None
    """Blocks of the back, where what is sent depends on them, too."""


@dataclass(frozen=True)
class TrainingSpec:
    """All that a training depends on, and nothing else."""

    data: Data
    """The data section, which says how coins are tossed and how large the reserve is."""
    model: Model
    """The cut of an undefended training changes no result; it is the run's own."""
    training: Training
    """The training section without rivals: those are trainings of their own."""
    seed: int = 0
    defenses: Composition = NONE
    """One defense, or several that are in force together, in this order."""
    cut: tuple[int, int] | None = None
    """Only where a defense acts at it."""
    coins: int = 0
    """Toss of the coins that say who is a member; 0 is the audit's own."""
    canaries: tuple[str, ...] = ()
    """Sequences that were planted."""
    hijack: Hijack | None = None

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all values, in hexadecimal. Defaults are left out, so that a new field renames no training."""
        values = {name: value for name, value in self._values().items() if value not in (None, 0, [], {}, "")}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return sha256(canonical.encode()).hexdigest()

    @property
    def name(self) -> str:
        """``<strategy>-<defense>-<hash8>``: readable first, made unique by the digest."""
        defense = self.hijack.attack if self.hijack else self.defense
        return f"{_plain(self.training.label)}-{_plain(defense)}-{self.digest[:8]}"

    @property
    def plugins(self) -> list[tuple[Kind, str]]:
        """Its strategy and defenses, as plugins are known."""
        defenses = [name_and_settings(entry)[0] for entry in flat(self.defenses)]
        return [("strategies", self.training.strategy), *(("defenses", name) for name in defenses if name != NONE)]

    @property
    def defense(self) -> str:
        """The name of its defenses, as findings have it."""
        return canonical(self.defenses)

    @property
    def strategy(self) -> str:
        """The strategy's label, as findings name it."""
        return self.training.label

    @property
    def label(self) -> str:
        """The strategy with the defense that it trains under, if there is one, for a table of trainings."""
        return self.strategy if self.defense == NONE else f"{self.strategy} under {self.defense}"

    @property
    def text(self) -> str:
        """All values as YAML, for whoever looks into the training's folder."""
        return text_of({"name": self.name, **self._values()})

    def scenario(self, asked: Scenario) -> Scenario:
        """Return what was asked for, as if this training had been asked for alone."""
        model = self.model
        if self.cut is not None:
            model = model.model_copy(update={"cut": Cut(front=self.cut[0], back=self.cut[1])})
        update = {"data": self.data, "model": model, "training": self.training, "seed": self.seed}
        return asked.model_copy(update=update)

    def _values(self) -> dict[str, Any]:
        """Every field as plain values. The cut that the run really trains at is none of an undefended training's."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Data | Model | Training):
                value = value.model_dump(mode="json", exclude_defaults=True)
            hijack = isinstance(value, Hijack)
            found[each.name] = {n: v for n, v in vars(value).items() if v is not None} if hijack else value
        found["model"].pop("cut", None)
        found["training"].pop("rivals", None)
        if self.defense == NONE:
            found.pop("defenses")
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]  # tuples become lists


def own_training(scenario: Scenario) -> TrainingSpec:
    """Return the scenario's own training, undefended and under its own seed."""
    alone = scenario.training.model_copy(update={"rivals": None})
    return TrainingSpec(scenario.data, scenario.model, alone, scenario.seed)


def rivals_of(own: TrainingSpec, scenario: Scenario) -> list[TrainingSpec]:
    """Return the same training with the strategy of each of the scenario's rivals."""
    return [
        replace(own, training=each.model_copy(update={"rivals": None})) for each in rivals.trainings(scenario.training)
    ]


def _plain(text: str) -> str:
    """Return the part of a file name that a label becomes.

    >>> _plain("pplr without heating"), _plain("dp_sgd(epsilon=8)+quantize(bits=8)")
    ('pplr-without-heating', 'dp_sgd-epsilon-8-quantize-bits-8')
    """
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:_AT_MOST].strip("-.")
