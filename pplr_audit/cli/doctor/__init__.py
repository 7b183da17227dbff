"""The doctor: what this installation has and lacks (versions, hardware, extras, plugins, disk), and how to mend it.

Nothing here imports a library in this process: versions are read from what is installed, and whether it also works is
tried in another process (`trial.py`), which may die of it.
"""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pplr_audit.cli.doctor.check import Check, Trial
from pplr_audit.cli.doctor.libraries import extras, needed, package, plugins
from pplr_audit.cli.doctor.machine import disk, processors
from pplr_audit.cli.doctor.try_imports import targets, try_imports
from pplr_audit.runs.progress import Progress

__all__ = ["Check", "Examination", "examine"]


@dataclass(frozen=True)
class Examination:
    """All checks, in the order in which they are shown."""

    checks: tuple[Check, ...]

    @property
    def able(self) -> bool:
        """True if the main job can run."""
        return not any(check.state == "failed" for check in self.checks)

    def document(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""
        return {"schema": "pplr-audit/doctor/1", "able": self.able, "checks": [asdict(check) for check in self.checks]}


def examine(progress: Progress) -> Examination:
    """Look at everything. Raises nothing: what is broken is a check that failed."""
    asked = targets()
    with progress.phase("importing what the main job needs", len(asked)) as advance:
        trial = try_imports(asked, advance)
    return Examination(tuple(_checks(trial)))


def _checks(trial: Trial) -> Iterator[Check]:
    yield _python()
    yield package()
    yield from needed(trial)
    yield from plugins(trial)
    yield from extras()
    yield from processors(trial)
    yield from disk()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = sys.version_info >= (3, 11)
    return Check(
        "versions", "python", "ok" if fits else "failed", version, "" if fits else "install Python 3.11 or later"
    )
