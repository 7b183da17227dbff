"""One cell of an audit, and the rows that it leaves in the findings."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from pplr_audit.threat_model.attack import Attack
from pplr_audit.threat_model.channels import Channel

METRICS = {
    "history": ("token_accuracy", "item_hit@1", "item_hit@5", "exact_history"), "membership": ("auc",),
    "label": ("label_hit@1", "label_hit@5", "label_hit@10", "mrr"), "attribute": ("auc", "accuracy"),
    "linkage": ("auc",), "items": ("item_recall", "token_ap"), "owner": ("owner_hit@1",),
    "targets": ("item_recall", "item_recall@10"),
    "recommendation": ("recommendation_hit@1", "recommendation_hit@5", "recommendation_hit@10"),
}  # fmt: skip
"""Metrics that stand in the findings for a secret, also where nothing could be measured."""


_OF_TRAINING = frozenset({"strategy", "seed", "training", "question"})


@dataclass(frozen=True)
class Cell:
    """One attack by one adversary on one channel at one cut."""

    attack: str
    settings: str
    """The attack's settings as canonical JSON."""
    adversary: str
    knowledge: str
    channel: Channel
    front: int | None
    back: int | None
    round: int
    defense: str
    strategy: str = ""
    seed: int = 0
    training: str = ""
    """Name of the training that is attacked; a hijacked one's is that of the training it stands for."""
    question: str = ""
    """All else that the answer depends on, as canonical JSON: another question is another cell."""
    also_rounds: tuple[int, ...] = ()
    """Earlier audited rounds that are read with it."""

    @property
    def rounds(self) -> tuple[int, ...]:
        """All rounds that are read, in their order."""
        return *self.also_rounds, self.round

    @property
    def slug(self) -> str:
        """A readable file name, made unique by a hash over everything."""
        return self._named(asdict(self))

    @property
    def drawn_by(self) -> str:
        """The name that the cell's controls are drawn by: the same in every training, and whatever else is asked."""
        return self._named({name: value for name, value in asdict(self).items() if name not in _OF_TRAINING})

    def _named(self, values: dict[str, Any]) -> str:
        if not self.also_rounds:  # one that reads a single round has the name that it always had
            values.pop("also_rounds")
        sha = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
        place = "".join(f"-{side}{at}" for side, at in (("k", self.front), ("m", self.back)) if at is not None)
        return f"{self.attack}-{self.channel}{place}-r{self.round}-{self.adversary}-{sha}"

    def row(self, metric: str, status: str, **fields: Any) -> dict[str, Any]:
        """One finding, in the order of DESIGN's contract; ``detail`` says the attack's settings where it has any."""
        cut = None if self.front is None and self.back is None else {"front": self.front, "back": self.back}
        base = {
            "cut": cut, "defense": self.defense, "adversary": self.adversary, "knowledge": self.knowledge,
            "channel": str(self.channel), "round": self.round, "client": "all", "attack": self.attack,
            "adaptive": True, "secret": "history", "metric": metric, "value": None, "ci": None, "baseline": None,
            "n": 0, "status": status, "seconds": 0.0, "detail": {}, "strategy": self.strategy, "seed": self.seed,
        }  # fmt: skip
        row = {**base, **fields}
        if self.settings != "{}":
            row["detail"] = {**row["detail"], "settings": json.loads(self.settings)}
        if self.also_rounds:
            row["detail"] = {**row["detail"], "also_rounds": [*self.also_rounds]}
        return row


def not_applicable(cell: Cell, secret: str, reason: str) -> dict[str, Any]:
    """The findings of a cell in which there is nothing to run."""
    rows = [cell.row(metric, "not_applicable", secret=secret, detail={"reason": reason}) for metric in METRICS[secret]]
    return {"findings": rows, "per_user": {}, "roc": []}


def without_value(cell: Cell, attack: Attack, status: str, reason: str, seconds: float = 0.0) -> dict[str, Any]:
    """The findings of a cell whose attack ended without a value, with the status and its reason."""
    document = not_applicable(cell, attack.secret, reason)
    for row in document["findings"]:
        row.update(status=status, seconds=seconds)
    return document
