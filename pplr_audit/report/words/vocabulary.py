"""The words of the report: what a channel carries, who an adversary is, what a metric counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ChannelWords:
    """One channel: who sends it to whom, and what is in it."""

    direction: str
    content: str


CHANNELS = {
    "front_activations": ChannelWords(
        "client → server", "hidden states after the front blocks, for every training token"
    ),
    "trunk_activations": ChannelWords("server → client", "hidden states after the server's blocks"),
    "back_gradients": ChannelWords("client → server", "gradient of the loss at the return cut"),
    "trunk_gradients": ChannelWords("server → client", "gradient of the loss at the front cut"),
    "metadata": ChannelWords("client → server", "masks, lengths, sample counts"),
    "trunk_update": ChannelWords("inside the server", "gradients and weights of the trunk adapter, per client"),
    "client_update": ChannelWords("client → server", "change of the client's adapter over one round"),
    "status": ChannelWords("client → server", "training loss and stopping metric"),
    "aggregate": ChannelWords("server → all", "the sum of client updates, as secure aggregation would reveal it"),
    "personal_model": ChannelWords("server → client", "the balanced adapter sent back to one client"),
    "model_output": ChannelWords("model → anyone", "scores or text for a query to a trained personal model"),
    "inference_activations": ChannelWords(
        "both ways", "hidden states when the trained model serves a user: prompt and generated title, no label"
    ),
    "inference_output": ChannelWords("both ways", "what the served model returns across the cut"),
}

WITHOUT_TRUNK = frozenset({"client_update", "status", "aggregate", "personal_model", "model_output"})
"""Channels that cross whether or not a block is left for the server; the others need a trunk."""

KINDS = {
    "activations": ("front_activations", "trunk_activations"),
    "gradients": ("back_gradients", "trunk_gradients"),
    "updates": ("client_update", "trunk_update", "aggregate", "personal_model"),
    "serving": ("inference_activations", "inference_output"),
}
"""Kinds of channels that tables put side by side. The first of a kind says most: the server makes the others of it."""

SERVING = frozenset({"inference_activations", "inference_output", "model_output"})
"""Channels of a trained model that serves; the others are of training."""

ADVERSARIES = {
    "server": "runs the trunk and balances the clients: sees everything that reaches the server",
    "trunk_host": "runs the trunk: sees activations, gradients, metadata and the trunk's own updates",
    "aggregator": "balances the clients: sees client updates and status, no activations",
    "peer": "another client: its own data and models, and what the server sends it",
    "outsider": "queries a trained model and sees its output",
    "malicious_server": "the server, and also chooses what it sends",
}

KNOWLEDGE = {
    "front": "the client's layers as the server last balanced them and as its update leaves them",
    "strongest": "the client's layers as they were at the start of the round, where the adversary is sent them",
    "own": "the model that it trained itself, before the server mixed it",
    "base": "the public base weights only, none of the client's own",
    "auxiliary": "no weights of the client, but texts of a colluding client with what crosses of each",
}
"""Knowledge that an adversary has of the client's model, besides what crosses, the template and the catalogue."""

GROUPS = {
    "members": "members, who train",
    "non_members": "non-members, left out by a coin",
    "reserve": "in reserve, who never train",
}
"""The groups of the users who take part."""

AUXILIARY = {
    "matched": "histories of the reserve's users, and random ones over the same catalogue if these are too few",
    "catalogue": "random histories over the same catalogue",
    "public": "random histories over another catalogue",
    "none": "none",
}
"""The text that an adversary runs the weights on that it has, by `audit.auxiliary`."""

SECRETS = {
    "history": "what a user did before",
    "label": "the next item, the training target",
    "membership": "whether a user was trained on",
    "attribute": "a personal attribute",
    "linkage": "which sequences are of one user",
    "items": "which items a client trained on",
    "targets": "which next items a client trained on",
    "owner": "which client an update is of",
    "recommendation": "what a user was recommended",
}

COMPARED = {
    "chance": "chance", "control": "its control", "reserve": "its control on users of the reserve",
    "popularity": "popularity",
    "own_model": "what its own model recommends", "client": "what the client alone tells",
    "lengths": "what the lengths alone tell", "majority": "the commonest value",
    "untargeted": "what its model recommends most often",
}  # fmt: skip
"""References that a finding is compared with, by the name that they have there."""

STATUS = {
    "ok": "measured",
    "not_applicable": "not applicable",
    "failed": "failed",
    "budget_exhausted": "budget exhausted",
    "skipped": "skipped",
}

_METRICS = {
    "token_accuracy": "title tokens recovered",
    "exact_history": "whole histories, in order",
    "history_jaccard": "common items as a share of the items in either history",
    "kendall_tau": "order of the items read (Kendall's tau)",
    "mrr": "mean reciprocal rank of the true next item",
    "auc": "area under the ROC curve",
    "accuracy": "users whose value is named",
    "epsilon_lower": "measured lower bound of epsilon",
    "item_recall": "true items among as many named",
    "token_ap": "average precision of the title tokens",
    "exact_sequences": "sequences read whole and in order",
    "rouge1": "single words recovered (ROUGE-1)",
    "rouge2": "word pairs recovered (ROUGE-2)",
    "rougeL": "longest common word sequence (ROUGE-L)",
}

_NAMED = {
    "item_hit": ("true item", "of a history's items"), "label_hit": ("true next item", "of the next items"),
    "recommendation_hit": ("recommended item", "of the recommended items"),
}  # fmt: skip
"""An item that is named, and how many of them are."""

REFERENCES = {
    "untrained": "the untrained model", "popularity": "popularity", "best_possible": "the best that is possible",
}  # fmt: skip
"""Utility rows that are not a training: what a strategy must beat to be of use."""

HEADLINE = {
    "history": ("item_hit@1", "token_accuracy", "exact_history"),
    "label": ("label_hit@1", "label_hit@10", "mrr"),
    "membership": ("auc", "tpr@0.1", "tpr@0.01"),
    "attribute": ("auc", "accuracy"),
    "linkage": ("auc",),
    "items": ("item_recall", "item_recall@10", "token_ap"),
    "targets": ("item_recall", "item_recall@10"),
    "owner": ("owner_hit@1",),
    "recommendation": ("recommendation_hit@1", "recommendation_hit@10"),
}
"""Metrics that a reader asks about first, in this order, for each secret."""


def metric_words(metric: str) -> str:
    """Say what a metric counts.

    >>> metric_words("item_hit@5"), metric_words("tpr@0.01"), metric_words("something_new")
    ('true item among the best 5', 'members found at 1% false alarms', 'something_new')
    """
    family, _, at = metric.partition("@")
    if family in _NAMED and at:
        what, _ = _NAMED[family]
        return f"{what} named first" if at == "1" else f"{what} among the best {at}"
    if family == "item_recall" and at:
        return f"true items among the best {at} named"
    if family == "owner_hit":
        return "updates whose client is named first"
    if family == "tpr" and at:
        return f"members found at {100 * float(at):.3g}% false alarms"
    if family in ("recall", "ndcg"):
        return {"recall": "Recall", "ndcg": "NDCG"}[family] + f"@{at}"
    return _METRICS.get(metric, metric)


def metric_claim(metric: str, amount: str) -> str:
    """Return a verb phrase for whoever scores ``amount`` in a metric.

    >>> metric_claim("item_hit@1", "93%"), metric_claim("something_new", "0.4")
    ("names 93% of a history's items at the first guess", 'reaches something_new 0.4')
    """
    family, _, at = metric.partition("@")
    if family in _NAMED and at:
        _, what = _NAMED[family]
        return (
            f"names {amount} {what} at the first guess"
            if at == "1"
            else f"has {amount} {what} among its best {at} guesses"
        )
    if family == "item_recall":
        best = f"its best {at} guesses" if at else "as many guesses as there are"
        return f"has {amount} of a client's items among {best}"
    if family == "tpr" and at:
        return f"finds {amount} of the members at {100 * float(at):.3g}% false alarms"
    claims = {
        "token_accuracy": f"recovers {amount} of the title tokens",
        "exact_history": f"recovers {amount} of the histories whole and in order",
        "auc": f"reaches an area under the ROC curve of {amount}",
        "owner_hit": f"names the client of {amount} of the updates",
        "exact_sequences": f"recovers {amount} of the sequences whole and in order",
        "accuracy": f"names the value of {amount} of the users",
    }
    return claims.get(family, f"reaches {metric_words(metric)} {amount}")


def cut_words(cut: Mapping[str, Any] | None) -> str:
    """A cut as k (blocks in front) and m (blocks behind); a side that does not matter is left out.

    >>> cut_words({"front": 2, "back": None}), cut_words({"front": 2, "back": 1}), cut_words(None)
    ('k=2', 'k=2, m=1', 'any cut')
    """
    if cut is None:
        return "any cut"
    sides = [f"{letter}={cut[side]}" for letter, side in (("k", "front"), ("m", "back")) if cut[side] is not None]
    return ", ".join(sides) or "any cut"


def secret_words(secret: str) -> str:
    """A secret and what it is.

    >>> secret_words("label"), secret_words("something_new")
    ('label (the next item, the training target)', 'something_new')
    """
    return f"{secret} ({SECRETS[secret]})" if secret in SECRETS else secret


def knowledge_words(level: str) -> str:
    """Explain a level of knowledge, also one that this version does not know."""
    return f"{level}: {KNOWLEDGE[level]}" if level in KNOWLEDGE else level


def text_words(audit: Mapping[str, Any]) -> str:
    """Name the text that the adversaries of an audit had, where they had weights to run it on, also of a kind that this
    version does not know.

    >>> text_words({"knowledge": "base", "auxiliary": "none"}), text_words({"knowledge": "auxiliary"})
    ('none', '')
    """
    text = "" if audit["knowledge"] == "auxiliary" else str(audit.get("auxiliary", ""))
    return AUXILIARY.get(text, text)


def groups_words(groups: Mapping[str, int]) -> str:
    """Say how many users are in each group of a population.

    >>> groups_words({"members": 1040, "non_members": 400, "reserve": 160})
    '1,040 members, who train; 400 non-members, left out by a coin; 160 in reserve, who never train'
    """
    return "; ".join(f"{groups.get(name, 0):,} {words}" for name, words in GROUPS.items())


def learned_words(detail: Mapping[str, Any]) -> str:
    """Say what an adversary may learn its attack from, by the detail of a finding.

    >>> learned_words({"auxiliary": "public"}), learned_words({"colluder": "client-2"}), learned_words({})
    ('random histories over another catalogue', 'prompts of client-2, who colludes', '')
    >>> learned_words({"auxiliary": "matched", "auxiliary_users": 9, "auxiliary_random": 3})
    'histories of 9 users of the reserve and 3 random ones over the same catalogue'
    >>> learned_words({"auxiliary": "public", "plaintext_used": 7})
    'random histories over another catalogue; the public catalogue as it crossed of each client'
    """
    if detail.get("plaintext_used"):
        rest = {name: value for name, value in detail.items() if name != "plaintext_used"}
        return f"{learned_words(rest)}; the public catalogue as it crossed of each client"
    if "colluder" in detail:
        return f"prompts of {detail['colluder']}, who colludes"
    text = str(detail.get("auxiliary", ""))
    if text == "matched" and "auxiliary_users" in detail:
        users, random = detail["auxiliary_users"], detail.get("auxiliary_random")
        if not users:
            return f"{AUXILIARY['catalogue']}, as the reserve has no user"
        more = f" and {random} random ones over the same catalogue" if random else ""
        return f"histories of {users} users of the reserve{more}"
    return AUXILIARY.get(text, "")


def phase(channel: str) -> str:
    """Return the phase in which a channel is there.

    >>> phase("back_gradients"), phase("inference_activations")
    ('training', 'serving')
    """
    return "serving" if channel in SERVING else "training"


def channel_words(channel: str) -> ChannelWords:
    """The words of a channel, also of one this version does not know."""
    return CHANNELS.get(channel, ChannelWords("?", channel))
