"""A data set looked at on its own: what `pplr-audit data` does."""

from collections.abc import Sequence
from typing import Any

from pplr_audit import scenario as scenarios
from pplr_audit.data.load import load
from pplr_audit.data.overview import overview
from pplr_audit.runs.progress import Progress


def inspect(path: str, settings: Sequence[str], progress: Progress, *, examples: bool = True) -> dict[str, Any]:
    """Describe the data that a scenario with this ``path`` and these settings would use, as JSON values.

    ``examples`` says whether histories and titles are among them.

    Raises InputError as loading a scenario and reading its data do.
    """
    chosen = scenarios.of_data(path, settings)
    with progress.phase("reading the data", None):
        dataset = load(chosen.data, chosen.seed)
    return overview(dataset, examples=examples)
