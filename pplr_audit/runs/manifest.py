"""The seconds that the phases of a run took, in its manifest."""

from collections.abc import Mapping

from pplr_audit.runs.store import Store


def add_seconds(store: Store, spent: Mapping[str, float]) -> None:
    """Add the time of work that was done to what the same phases took in earlier calls."""
    before = store.manifest.get("seconds", {})
    total = {**before, **{name: round(before.get(name, 0.0) + seconds, 3) for name, seconds in spent.items()}}
    store.update_manifest(seconds=total)


def replace_seconds(store: Store, spent: Mapping[str, float]) -> None:
    """Note the time of phases that every call goes through, such as reading the data: that of the latest call."""
    store.update_manifest(seconds={**store.manifest.get("seconds", {}), **spent})
