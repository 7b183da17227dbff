"""Attack a recording: read all of it, then run its cells and write what they found into a directory of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pplr_audit import __version__
from pplr_audit.audit.cell import Cell
from pplr_audit.audit.imported.inputs import RecordedInputs
from pplr_audit.audit.imported.recording import Recording, read
from pplr_audit.audit.plan import MEASURED, attack_of
from pplr_audit.audit.run_cell import run_cell
from pplr_audit.audit.tap_points import SIDES
from pplr_audit.audit.user_spread import with_spread
from pplr_audit.errors import InputError
from pplr_audit.runs import manifest as manifests
from pplr_audit.runs.environment import hardware, libraries
from pplr_audit.runs.progress import Clock
from pplr_audit.runs.store import IMPORTED, Store
from pplr_audit.runs.verdicts import with_verdicts
from pplr_audit.scenario import plugins
from pplr_audit.scenario.schema import Named
from pplr_audit.threat_model.attack import Attack, also_reads, as_active, reads_all_rounds, runs_copies
from pplr_audit.threat_model.channels import OF_ADAPTERS

STRATEGY = "recorded"
"""The name that stands in findings for the strategy, of which nothing is known."""
ASKED = frozenset({"history", "label", "items", "targets", "owner"})
"""Secrets that a recording can hold the truth of."""
Attacks = Mapping[tuple[str, str], Attack]


@contextmanager
def attacked(
    folder: Path, out: Path, entries: Sequence[Named], clock: Clock, seconds: float
) -> Iterator[tuple[Store, dict[str, Any], dict[str, Any]]]:
    """Run attacks on a recording; yield the open store, the findings and the evidence.

    What is there already is not run again, but the findings are of the attacks that are asked for now.

    Args:
        seconds: ceiling on an attack's time, as ``audit.budget``.

    Raises:
        InputError: the recording or an attack does not fit, or ``out`` holds something else; nothing has been written.
    """
    with clock.phase("reading the recording"):
        attacks = dict(attack_of(entry, "--attack") for entry in entries)
        recording = read(folder)
        cells = [*cells_of(recording, attacks)]
    with Store.open(out, recording.text, recording.digest, IMPORTED) as store:
        inputs, seed = RecordedInputs(recording, attacks, store), recording.manifest.seed
        found = list[dict[str, Any]]()
        with clock.phase("attacking", len(cells)) as advance:
            for cell in cells:
                attack = attacks[cell.attack, cell.settings]
                found.append(run_cell(cell, attack, inputs, store, budget=seconds, seed=seed))
                advance(1, f"{cell.attack} on {cell.channel}")
        told = with_verdicts(with_spread(found, inputs.client_of, seed=seed), seed=seed)
        manifests.replace_seconds(store, clock.seconds)
        run = _run(recording, store.manifest)
        run["plugins"] = plugins.provenance(("attacks", cell.attack) for cell in cells)
        document = {
            "schema": "pplr-audit/findings/1", "run": run, "findings": [_named(row, recording) for row in told],
            "utility": [], "costs": [],
        }  # fmt: skip
        curves = [curve for cell in found for curve in cell["roc"]]
        evidence = {
            "schema": "pplr-audit/evidence/1", "examples": [], "roc": curves, "training": [], "balance": [],
        }  # fmt: skip
        yield store, document, evidence


def cells_of(recording: Recording, attacks: Attacks) -> Iterator[Cell]:
    """Yield a cell for each attack. Raises InputError for one that a recording has nothing for."""
    manifest, channel = recording.manifest, recording.channel
    sides = SIDES[channel]
    earlier = tuple(sorted({each.round for each in manifest.observations} - {recording.newest}))
    for (name, settings), attack in attacks.items():
        if channel not in attack.channels:
            reads = ", ".join(sorted(attack.channels))
            raise InputError(f"--attack: {name} reads {reads}, and this recording is of {channel}")
        if attack.secret not in ASKED or channel not in MEASURED[attack.secret]:
            raise InputError(
                f"--attack: {name} asks for {attack.secret}, of which a recording of {channel} says nothing"
            )
        if as_active(attack) is not None or also_reads(attack):
            raise InputError(
                f"--attack: {name} chooses what is sent, or reads more than one channel; a recording has one"
            )
        known = bool(recording.adapters) and runs_copies(attack)
        front, back = manifest.model.cut.front, manifest.model.cut.back
        yield Cell(
            name, settings, manifest.adversary, "front" if known else "base", channel,
            front if "front" in sides else None, back if "back" in sides else None, recording.newest,
            manifest.defense, STRATEGY, manifest.seed,
            also_rounds=earlier if reads_all_rounds(attack) and channel in OF_ADAPTERS else (),
        )  # fmt: skip


def _named(row: Mapping[str, Any], recording: Recording) -> dict[str, Any]:
    """Return a finding that says where it is from. No attack here was made for a defense that another system has."""
    adaptive = row["adaptive"] and recording.manifest.defense == "none"
    return {**row, "adaptive": adaptive, "detail": {**row["detail"], "recording": recording.manifest.name}}


def _run(recording: Recording, said: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the recording in the words of a run. Counts are of what was recorded, and not of that system."""
    manifest, model, truth = recording.manifest, recording.model, recording.truth or {}
    asked = [each.row for each in manifest.observations if each.round == recording.newest]
    clients = [_client(name, recording) for name in manifest.clients]
    users = len({true.user for true in truth.values()})
    samples = [sample for true in truth.values() for sample in true.samples]
    held, given = (
        sum(len(prompt.items) for own in recording.prompts.values() for prompt in own),
        sum(len(sample.items) for sample in samples),
    )
    return {
        "name": manifest.name, "seed": manifest.seed, "created": said["created"], "version": __version__,
        "backbone": Path(model.backbone).name, "backbone_digest": model.digest,
        "recommender": manifest.model.recommender, "precision": model.precision, "strategy": STRATEGY,
        "rounds": recording.newest, "layers": model.layers, "hidden": int(model.whole.model.config.hidden_size),
        "cut": {"front": model.parts.front, "back": model.parts.back}, "clients": clients,
        "data": {
            "name": manifest.name, "users": users, "items": len(manifest.catalogue), "interactions": given,
            "digest": recording.digest, "groups": {"members": users, "non_members": 0, "reserve": 0},
        },
        "prompt": {
            "max_tokens": manifest.model.max_tokens, "titles_cut_share": model.prompts.titles_cut_share,
            "items_dropped_share": 1 - held / given if given else 0.0,
        },
        "audit": {
            "victims": len(asked), "rounds": sorted({each.round for each in manifest.observations}),
            "knowledge": "front" if recording.adapters else "base", "auxiliary": "catalogue",
            "history": manifest.history,
        },
        "recording": {
            "name": manifest.name, "adversary": manifest.adversary, "channel": manifest.channel,
            "digest": recording.digest, "scored": recording.truth is not None,
        },
        "libraries": libraries(), "hardware": hardware(), "seconds": dict(said.get("seconds", {})),
        "not_measured": [
            f"All but {manifest.channel}: the findings come from a recording of another system, which holds no more.",
            "Utility and costs of that system, and its users who are not in the recording.",
            "Attacks that are not in the list of findings: a low figure bounds the tested attacks alone.",
        ],
    }  # fmt: skip


def _client(name: str, recording: Recording) -> dict[str, Any]:
    """Count what was recorded of a client."""
    rows = [each.row for each in recording.manifest.observations if recording.clients[each.row] == name]
    own = [recording.truth[row] for row in rows if recording.truth is not None and row in recording.truth]
    users = len({true.user for true in own})
    samples = sum(len(true.samples) for true in own)
    return {"name": name, "users": users, "members": users, "non_members": 0, "reserve": 0, "samples": samples}
