"""A data set looked at on its own: what `pplr-audit data` does."""

from collections.abc import Sequence
from typing import Any

from pplr_audit import scenario as scenarios
from pplr_audit.data.dataset import Dataset
from pplr_audit.data.load import load
from pplr_audit.data.overview import overview
from pplr_audit.data.population import populate
from pplr_audit.data.split import split
from pplr_audit.errors import InputError
from pplr_audit.runs.progress import Progress
from pplr_audit.scenario.schema import Scenario


def inspect(path: str, settings: Sequence[str], progress: Progress, *, examples: bool = True) -> dict[str, Any]:
    """Describe the data that a scenario with this ``path`` and these settings would use, as JSON values.

    ``examples`` says whether histories and titles are among them.

    Raises InputError as loading a scenario and reading its data do.
    """
    chosen = scenarios.of_data(path, settings)
    with progress.phase("reading the data", None):
        dataset = load(chosen.data, chosen.seed)
    with progress.phase("forming the groups", None):
        groups = _groups(dataset, chosen)
    return overview(dataset, examples=examples) | {"groups": groups}


def _groups(dataset: Dataset, chosen: Scenario) -> dict[str, int | str]:
    """Count the users of each group that the scenario makes, or give the reason why it cannot make them."""
    data = chosen.data
    try:
        parts = split(dataset, data.split, valid=data.shares.valid, test=data.shares.test)
        groups = populate(dataset, parts, data, chosen.seed).groups()
    except InputError as reason:
        return {"refused": str(reason)}
    return {group: int(users.sum()) for group, users in groups.items()}
