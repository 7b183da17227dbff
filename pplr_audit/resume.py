"""What of a job is there already: a run goes on with the inputs that it began with, from where it stopped."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pplr_audit import plugins
from pplr_audit.data.prepare import PrivateData
from pplr_audit.documents import hardware, libraries
from pplr_audit.errors import InputError, RunError
from pplr_audit.models.precision import Precision
from pplr_audit.models.recommender import Recommender
from pplr_audit.pplr import rounds as federated
from pplr_audit.pplr.client import Client
from pplr_audit.pplr.rounds import Federation
from pplr_audit.progress import Advance
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.parsing import shaped
from pplr_audit.runs.store import MANIFEST, SCENARIO, Store
from pplr_audit.runs.trainings import TrainingFiles
from pplr_audit.scenario import Scenario

PLAIN: Precision = "float32"
"""What runs computed in before they noted it."""


def precision_of(root: Path) -> Precision | None:
    """What the run in ``root`` began to compute in; None where no run has begun there, or none that can be read."""
    try:
        with Store.load(root) as store:
            inputs = store.manifest.get("inputs")
    except (InputError, RunError):
        return None  # whoever opens it says why
    if inputs is None:
        return None
    return shaped(inputs.get("precision", PLAIN), Precision, f"{root / MANIFEST}: inputs.precision")


def same_inputs(store: Store, private: PrivateData, model: Recommender) -> None:
    """Note data and weights in a run that begins. Raises InputError for one that began with others."""
    inputs = {"data": private.dataset.digest, "backbone": model.digest, "precision": model.precision}
    before = store.manifest.get("inputs")
    if before is None:
        store.update_manifest(inputs=inputs, libraries=libraries(), hardware=hardware())
        note_plugins(store, [("readers", private.dataset.reader)])
        return
    for what, digest in inputs.items():
        began = before.get(what, PLAIN if what == "precision" else digest)  # an older run has noted less
        if began != digest:
            raise InputError(
                f"{store.root}: began with another {what} ({str(began)[:8]}, now {digest[:8]}); "
                "bring it back, or begin again in another directory (--out DIR)"
            )


def note_plugins(store: Store, used: Iterable[tuple[plugins.Kind, str]]) -> None:
    """Write into the manifest which packages, in which versions, the plugins about to run come from.

    What ran in an earlier call stays there, also if its package has another version now.
    """
    noted = store.manifest.get("plugins", [])
    new = [each for each in plugins.provenance(used) if each not in noted]
    if new:
        store.update_manifest(plugins=[*noted, *new])


def training_slug(scenario: Scenario) -> str:
    """The defence and a hash over the part of the scenario that a training depends on."""
    part = scenario.model_dump(mode="json", include={"seed", "data", "model", "training"}, exclude_defaults=True)
    part.get("training", {}).pop("rivals", None)
    return f"none-{hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:8]}"


def train(
    federation: Federation,
    files: TrainingFiles,
    rounds: int,
    advance: Advance,
    validate: Callable[[Client], float | None] | None = None,
) -> None:
    """Train what is left of the rounds, with ``validate`` as `rounds.train` has it; ends with the trained models."""
    state = files.latest()
    if state is None:
        state = federation.state(1)
        files.save_state(state)
    federation.resume(state)
    advance((state.round - 1) * len(federation.clients))

    def client_done(note: str) -> None:
        reach("round")
        advance(1, note)

    federated.train(federation, rounds, first=state.round, done=files.save, advance=client_done, validate=validate)
    federation.deliver()


def require_trained(store: Store, files: TrainingFiles, rounds: int) -> None:
    """Raises InputError, with the command that goes on, where a round is left to train."""
    done = files.done()
    if done < rounds:
        raise InputError(
            f"{store.root}: its training is not finished ({done} of {rounds} rounds); continue it with: "
            f"pplr-audit train {store.root / SCENARIO} --out {store.root}"
        )


def once(store: Store, path: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in the run directory under ``path``, made first if it is not there."""
    if not store.exists(path):
        store.write_json(path, make())
    return dict(store.read_json(path))


def add_seconds(store: Store, spent: Mapping[str, float]) -> None:
    """Add to the manifest's wall time by phase, which is over all the calls that a run took so far."""
    before = store.manifest.get("seconds", {})
    total = {**before, **{name: round(before.get(name, 0.0) + seconds, 3) for name, seconds in spent.items()}}
    store.update_manifest(seconds=total)
