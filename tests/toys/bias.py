"""Names the client of an update by its bias: the mean of all that changed, beside that of updates of earlier rounds."""

import numpy as np

from pplr_audit.threat_model import Budget, Channel, Guess, Knowledge, NotApplicable, Update, View


def bias(update: Update) -> float:
    return sum(float(each.sum()) for each in update.tensors.values()) / sum(t.numel() for t in update.tensors.values())


class Bias:
    """Needs updates of earlier rounds, whose clients are known."""

    name = "bias"
    secret = "owner"
    channels = frozenset({Channel.CLIENT_UPDATE})
    controls = 4
    rounds = "all"

    def run(self, view: View[Update], knowledge: Knowledge, budget: Budget) -> Guess:
        known = {name: [bias(u) for u in view.records if u.client == name] for name in knowledge.clients}
        if not all(known.values()):
            raise NotApplicable("some client has no update of a known round")
        asked = [update for update in view.records if update.row in view.rows]
        far = [[abs(bias(update) - np.mean(known[name])) for name in knowledge.clients] for update in asked]
        return Guess({"rows": np.array([update.row for update in asked]), "owners": -np.array(far)})
