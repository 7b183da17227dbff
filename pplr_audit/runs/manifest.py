"""Parts of a run that are made once and kept, and the seconds that its phases took."""

from collections.abc import Callable, Mapping
from typing import Any

from pplr_audit.runs.store import Store


def once(store: Store, path: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read the document under ``path`` in the run directory, made first if it is not there."""
    if not store.exists(path):
        store.write_json(path, make())
    return dict(store.read_json(path))


def add_seconds(store: Store, spent: Mapping[str, float]) -> None:
    """Add to the manifest's wall time by phase, which is over all the calls that a run took so far."""
    before = store.manifest.get("seconds", {})
    total = {**before, **{name: round(before.get(name, 0.0) + seconds, 3) for name, seconds in spent.items()}}
    store.update_manifest(seconds=total)
