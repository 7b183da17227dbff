"""Attacks on what crosses once a round that look at nothing but its size: one for each other question."""

import numpy as np

from pplr_audit.threat_model import Aggregate, Budget, Channel, Guess, Knowledge, Update, View


class Lister:
    """Names the catalogue's items in their own order for everyone, and the first as the only sequence."""

    name = "lister"
    secret = "items"
    channels = frozenset({Channel.CLIENT_UPDATE, Channel.TRUNK_UPDATE, Channel.AGGREGATE, Channel.PERSONAL_MODEL})
    controls = 2

    def run(self, view: View[Update] | View[Aggregate], knowledge: Knowledge, budget: Budget) -> Guess:
        titles, rows = knowledge.prompts.titles, np.array(sorted(view.rows))
        items, first = len(titles), titles[0]
        arrays = {
            "ranked_items": np.tile(np.arange(items), len(rows)), "item_offsets": items * np.arange(len(rows) + 1),
            "sequence_tokens": np.tile(first, len(rows)), "sequence_places": np.arange(len(rows)),
            "sequence_offsets": len(first) * np.arange(len(rows) + 1),
        }  # fmt: skip
        steps = {f"{client} {round_}": each.steps for (client, round_), each in knowledge.steps.items()}
        return Guess({"rows": rows, **arrays}, {"knows": steps, "seen": [sorted(r.tensors) for r in view.records]})


class Sizes:
    """Scores every candidate by the size of its client's update."""

    name = "sizes"
    secret = "membership"
    channels = frozenset({Channel.CLIENT_UPDATE})
    controls = 2

    def run(self, view: View[Update], knowledge: Knowledge, budget: Budget) -> Guess:
        size = {u.client: sum(float(t.square().sum()) for t in u.tensors.values()) for u in view.records}
        rows = [row for row in sorted(view.asked) if row in knowledge.queries]
        return Guess({"rows": np.array(rows), "size": np.array([size[view.asked[row]] for row in rows])})
