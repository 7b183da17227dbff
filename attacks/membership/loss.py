"""Loss threshold: a model is surer of what it was trained on (Yeom et al. 2018), also against the base model.

``threshold``: the mean log-probability of the answer's tokens under the personal model. ``reference``: that minus the
same under the base model (LoRA switched off), which takes out how predictable a title is to anyone.
"""

from weakref import WeakKeyDictionary

import numpy as np

from pplr_audit.threat_model.attack import Budget, Guess
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import View


class Loss:
    """Needs the token log-probabilities of one query a candidate: its history and the item in question."""

    name = "loss"
    secret = "membership"
    channels = frozenset({Channel.MODEL_OUTPUT})
    controls = 20

    def __init__(self) -> None:
        self._base: WeakKeyDictionary[Knowledge, dict[int, float]] = WeakKeyDictionary()

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if not view.records:
            raise NotApplicable("no query was answered")
        missing = [r.row for r in view.records if r.row not in knowledge.queries]
        if missing:
            raise NotApplicable(f"{len(missing)} answers belong to no query of the adversary")
        budget.check()
        base = self._base.setdefault(knowledge, {})
        new = [r.row for r in view.records if r.row not in base]
        answers = knowledge.base.log_probs([knowledge.queries[row] for row in new])
        base |= {row: float(answer.mean()) for row, answer in zip(new, answers, strict=True)}
        own = np.array([float(record.tensor.double().mean()) for record in view.records])
        reference = np.array([base[record.row] for record in view.records])
        budget.check()
        rows = np.array([record.row for record in view.records])
        return Guess({"rows": rows, "threshold": own, "reference": own - reference})
