"""The membership protocol: its three groups, and whether members can be told from non-members without any model."""

from pplr_audit.report.findings.series import is_measured
from pplr_audit.report.words.quantities import interval, number
from pplr_audit.report.words.vocabulary import groups_words
from pplr_audit.runs.documents import Document

CHANCE = 0.5
"""The area under the ROC curve where nothing tells them apart."""


def groups(document: Document) -> list[str]:
    """One sentence on how many users train, how many a coin left out, and how many are held in reserve.

    Of a recording it says instead that the findings come from one, as nothing else is known.
    """
    recorded = document["run"].get("recording")
    if recorded is not None:
        of = f"{recorded['channel']}, recorded by {recorded['adversary']}"
        unscored = "" if recorded["scored"] else " It has no truth: answers are sealed, and nothing is scored."
        return [f"The findings come from a recording of another system ({of}).{unscored}"]
    found = document["run"]["data"].get("groups")
    return [f"Users: {groups_words(found)}."] if found else []


def model_free(findings: Document) -> tuple[float, tuple[float, float]] | None:
    """Its area under the ROC curve with its 95 % interval; nothing where no finding says it, as in a training."""
    for row in findings.get("findings", ()):
        ends = row["detail"].get("model_free_ci")
        area = row["detail"].get("model_free_auc")
        if row["secret"] == "membership" and is_measured(row) and _is_pair(ends) and _is_share(area):
            return float(area), (float(ends[0]), float(ends[1]))
    return None


def unfair_coins(findings: Document) -> list[str]:
    """A warning where that interval leaves out one half."""
    found = model_free(findings)
    if found is None or found[1][0] <= CHANCE <= found[1][1]:
        return []
    return [
        "Warning: members differ from non-members before any training. History length, popularity and words alone "
        f"tell them apart with an AUC of {_words(*found)}, and this interval excludes {number('auc', CHANCE)}. "
        "Findings on membership may come from this difference."
    ]


def checked(findings: Document) -> list[str]:
    """The check in words, or the warning; nothing where it was not made."""
    found = model_free(findings)
    if found is None:
        return []
    return unfair_coins(findings) or [
        "Check of the protocol: without any model, by history length, popularity and words, members are told from "
        f"non-members with an AUC of {_words(*found)}. This interval contains {number('auc', CHANCE)}, as it should."
    ]


def _words(area: float, ends: tuple[float, float]) -> str:
    return f"{number('auc', area)} {interval('auc', list(ends))}"


def _is_pair(told: object) -> bool:
    return isinstance(told, list | tuple) and len(told) == 2 and all(map(_is_share, told))


def _is_share(told: object) -> bool:
    return isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told <= 1
