"""Loss threshold: a model is surer of what it was trained on (Yeom et al. 2018), also against the base model.

``threshold``: the mean log-probability of the answer's tokens under the personal model. ``reference``: that minus the
same under the base model (LoRA switched off), which takes out how predictable a title is to anyone.
"""

import numpy as np
import torch
from torch import Tensor

from pplr_audit.threat_model.artifacts import digest_of_prompts
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
    copies = False  # the base model alone is run; the queried one answers

    def run(self, view: View, knowledge: Knowledge, budget: Budget) -> Guess:
        if not view.records:
            raise NotApplicable("no query was answered")
        missing = [r.row for r in view.records if r.row not in knowledge.queries]
        if missing:
            raise NotApplicable(f"{len(missing)} answers belong to no query of the adversary")
        budget.check()
        queries = [knowledge.queries[record.row] for record in view.records]

        def asked() -> dict[str, Tensor]:
            answers = knowledge.base.log_probs(queries)
            return {"mean": torch.tensor([float(answer.mean()) for answer in answers], dtype=torch.float64)}

        source = {"model": knowledge.base.digest, "queries": digest_of_prompts(queries)}
        reference = knowledge.fitted("base_log_probs", source, asked)["mean"].numpy()
        own = np.array([float(record.tensor.double().mean()) for record in view.records])
        budget.check()
        rows = np.array([record.row for record in view.records])
        return Guess({"rows": rows, "threshold": own, "reference": own - reference})
