"""A scenario says what to do: data, model, training, audit and report. Import its public names from here.

They are looked up when they are first used, so that ``pplr-audit --help`` needs no pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pplr_audit.scenario.loading import asked_anew, digest, dump, from_text, load, of_data, of_model
    from pplr_audit.scenario.schema import (
        LARGEST,
        Audit,
        Budget,
        Cut,
        Data,
        Lora,
        Market,
        Model,
        Named,
        Recformer,
        Report,
        Scenario,
        Section,
        Shares,
        Training,
    )

__all__ = [
    "LARGEST",
    "Audit",
    "Budget",
    "Cut",
    "Data",
    "Lora",
    "Market",
    "Model",
    "Named",
    "Recformer",
    "Report",
    "Scenario",
    "Section",
    "Shares",
    "Training",
    "asked_anew",
    "digest",
    "dump",
    "from_text",
    "load",
    "of_data",
    "of_model",
]


if not TYPE_CHECKING:  # a type checker would take every name for one of these

    def __getattr__(name: str) -> Any:
        """Return a public name from the module that defines it (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = "schema" if name[0].isupper() else "loading"
        return getattr(import_module(f"{__name__}.{home}"), name)
