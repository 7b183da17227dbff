"""How a round was trained: the settings on which it depends what an update says."""

from typing import Any

from pplr_audit.report.words.quantities import percent, several
from pplr_audit.runs.documents import Document

SETTINGS = (
    "optimizer", "learning rate", "batch size", "local epochs", "local steps", "LoRA rank", "LoRA layers", "dropout",
    "averaging", "clients",
)  # fmt: skip
"""Names of the settings, in the order in which they are told."""


def settings_of(run: Document) -> dict[str, Any]:
    """Return each setting by name; of a run of an earlier version, which did not write them down, the clients alone.

    Local steps are the most of a client in a round. Without LoRA its rank is ``all weights``.
    """
    found: dict[str, Any] = {"clients": len(run["clients"])}
    if (told := run.get("training")) is None:
        return found
    adapter = told["adapter"]
    found |= {
        "optimizer": told["optimizer"], "learning rate": told["learning_rate"], "batch size": told["batch_size"],
        "local epochs": told["local_epochs"], "local steps": told["steps"][1], "averaging": told["averaging"],
        "LoRA rank": "all weights" if adapter is None else adapter["rank"],
    }  # fmt: skip
    if adapter is not None:
        found |= {"LoRA layers": ", ".join(adapter["targets"]), "dropout": adapter["dropout"]}
    return {name: found[name] for name in SETTINGS if name in found}


def recipe_words(run: Document) -> str:
    """Say how a round was trained.

    >>> adapter = {"rank": 8, "alpha": 16, "dropout": 0.0, "targets": ["q_proj"]}
    >>> told = {"optimizer": "sgd", "learning_rate": 0.01, "batch_size": 16, "local_epochs": 1, "steps": [3, 4]}
    >>> print(*recipe_words({"training": {**told, "averaging": "factors", "adapter": adapter}}).split(". "), sep="\\n")
    In a round each client takes 3 to 4 local steps (1 epoch, batches of 16) by sgd with learning rate 0.01
    It trains LoRA of rank 8 on q_proj, without dropout.
    """
    if (told := run.get("training")) is None:
        return "This run is of a version that did not write down how a round is trained."
    least, most = told["steps"]
    steps = several(most, "local step") if least == most else f"{least} to {most} local steps"
    batches = f"{several(told['local_epochs'], 'epoch')}, batches of {told['batch_size']}"
    how = f"by {told['optimizer']} with learning rate {told['learning_rate']:.4g}"
    adapter = told["adapter"]
    if adapter is None:
        trained = "all weights"
    else:
        dropout = f"with dropout {percent(adapter['dropout'])}" if adapter["dropout"] else "without dropout"
        trained = f"LoRA of rank {adapter['rank']} on {', '.join(adapter['targets'])}, {dropout}"
    return f"In a round each client takes {steps} ({batches}) {how}. It trains {trained}."
