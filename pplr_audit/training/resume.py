"""Continuation of a run: from where it stopped, with the inputs that it began with."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pplr_audit.data.prepare import PrivateData
from pplr_audit.errors import InputError, RunError
from pplr_audit.models.backbones.load import hidden_size
from pplr_audit.models.build import Recommender
from pplr_audit.models.precision import Precision
from pplr_audit.runs.environment import hardware, libraries
from pplr_audit.runs.failpoints import reach
from pplr_audit.runs.parsing import shaped
from pplr_audit.runs.processor import processor
from pplr_audit.runs.progress import Advance
from pplr_audit.runs.store import MANIFEST, SCENARIO, Store
from pplr_audit.scenario import plugins
from pplr_audit.scenario.schema import Scenario
from pplr_audit.training import rounds as federated
from pplr_audit.training.checkpoints import TrainingFiles
from pplr_audit.training.client import Client
from pplr_audit.training.crossings import RoundRecorder
from pplr_audit.training.onlooker import Onlooker
from pplr_audit.training.rounds import Federation, RoundLog, RoundState
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.threads import MOST, Choice, Pace, asked_by_environment, checked, choose, limited

_Name = Annotated[str, Field(min_length=1)]
_COMPUTED: dict[str, Any] = {
    "threads": Annotated[int, Field(ge=1, le=MOST)], "chosen": _Name, "processor": dict[str, Any],
    "libraries": dict[str, str],
}  # fmt: skip
_PROCESSOR: dict[str, Any] = {
    "capability": str, "model": str, "instructions": list[str], "limits": dict[str, str],
}  # fmt: skip
"""Fields that must stand in a manifest's ``compute``, and in its ``processor``, whoever wrote it."""
TEMPLATE_TOKENS, TITLE_TOKENS = 20, 8
"""About so many a prompt and a title have, for how large a model's matrix products are; max_tokens is the most."""


def precision_of(root: Path) -> Precision | None:
    """Return the precision that the run in ``root`` began in, or None where no readable run has begun there."""
    try:
        with Store.load(root) as store:
            inputs = store.manifest.get("inputs")
    except (InputError, RunError):
        return None  # whoever opens it says why
    if inputs is None:
        return None
    return shaped(inputs.get("precision"), Precision, f"{root / MANIFEST}: inputs.precision")


@contextmanager
def computing(
    scenario: Scenario, root: Path, asked: int | None, say: Callable[[str], None], *, forks: bool = False
) -> Iterator[Choice]:
    """Compute with the threads that were asked for, or else those that the run began with, or else chosen ones.

    Args:
        forks: clients can train side by side.
    """
    noted = computed(root)
    if asked is not None:
        choice = Choice(checked(asked, "--threads"), "--threads")
    elif noted is not None:
        choice = noted
        if (told := asked_by_environment()) not in (None, choice.number):
            say(f"{root}: goes on with the {choice.number} threads that it began with, not {told} (--threads)")
    else:
        tokens = min(scenario.model.max_tokens, TEMPLATE_TOKENS + TITLE_TOKENS * scenario.data.history)
        beside = scenario.data.clients if forks else 1
        choice = choose(hidden_size(scenario.model.backbone), scenario.training.batch_size, tokens, beside)
    with limited(choice.number):
        yield choice


def computed(root: Path) -> Choice | None:
    """The threads that the run in ``root`` computed with last; None where none were noted.

    Raises InputError where the manifest does not say what `note_compute` writes.
    """
    try:
        with Store.load(root) as store:
            noted = store.manifest.get("compute")
    except (InputError, RunError):
        return None  # whoever opens it says why
    if not noted:
        return None
    place = f"{root / MANIFEST}: compute"
    for entry in shaped(noted, list[dict[str, Any]], place):
        for name, kind in _COMPUTED.items():
            shaped(entry.get(name), kind, f"{place}.{name}")
        for name, kind in _PROCESSOR.items():
            shaped(entry["processor"].get(name), kind, f"{place}.processor.{name}")
    return Choice(noted[-1]["threads"], noted[-1]["chosen"])


def note_compute(store: Store, threads: Choice, say: Callable[[str], None]) -> None:
    """Note the threads, processor and libraries of a run that begins; say and note what is another when it goes on.

    "Bit for bit" holds while none of them changes.

    Args:
        say: called with one line of text.
    """
    now = {
        "threads": threads.number, "chosen": threads.reason, "processor": processor(), "libraries": libraries(),
    }  # fmt: skip
    manifest = store.manifest
    noted = manifest.get("compute", [])
    if noted:
        other = [
            f"{what} {_spelled(noted[-1].get(what))} before, {_spelled(now[what])} now"
            for what in ("threads", "processor", "libraries")
            if noted[-1].get(what) != now[what]
        ]
        if not other:
            return
        say(f"{store.root}: {'; '.join(other)}: what follows differs in its last digits from a run without the change")
        store.event("compute_changed", before=noted[-1], now=now)
    store.update_manifest(compute=[*noted, now])


def _spelled(value: Any) -> str:
    """A value of JSON in a message."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_spelled(each)}" for name, each in value.items() if each)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def same_inputs(store: Store, private: PrivateData, model: Recommender) -> None:
    """Note data and weights in a run that begins. Raises InputError for one that began with others."""
    inputs = {"data": private.dataset.digest, "backbone": model.digest, "precision": model.precision}
    before = store.manifest.get("inputs")
    if before is None:
        store.update_manifest(inputs=inputs, libraries=libraries(), hardware=hardware())
        note_plugins(store, [("readers", private.dataset.reader)])
        return
    for what, digest in inputs.items():
        if before.get(what) != digest:
            raise InputError(
                f"{store.root}: began with another {what} ({str(before.get(what))[:8]}, now {digest[:8]}); "
                "bring it back, or begin again in another directory (--out DIR)"
            )


def note_plugins(store: Store, used: Iterable[tuple[plugins.Kind, str]]) -> None:
    """Write into the manifest which packages, in which versions, the plugins about to run come from.

    What ran in an earlier call stays there, also if its package has another version now.
    """
    place = f"{store.root / MANIFEST}: plugins"
    noted = shaped(store.manifest.get("plugins", []), list[dict[str, Any]], place)
    for each in noted:
        shaped(each, dict[Literal["kind", "name", "package", "version"], _Name], place)
        shaped(each.get("kind"), plugins.Kind, f"{place}.kind")
        for name in ("name", "package", "version"):
            shaped(each.get(name), _Name, f"{place}.{name}")
    new = [each for each in plugins.provenance(used) if each not in noted]
    if new:
        store.update_manifest(plugins=[*noted, *new])


def train(
    federation: Federation,
    files: TrainingFiles,
    rounds: int,
    advance: Advance,
    validate: Callable[[Client], float | None] | None = None,
    pace: Pace | None = None,
    onlooker: Onlooker | None = None,
) -> None:
    """Train what is left of the rounds, with ``validate`` as `rounds.train` has it; ends with the trained models.

    Args:
        pace: told how long each round took.
        onlooker: looks on in each round that is left.
    """
    state = files.latest()
    if state is None:
        state = federation.state(1)
        files.save_state(state)
    elif missing := files.missing():
        _rebuild(federation, files, missing, validate)
    federation.resume(state)
    recorder = RoundRecorder(federation.link, files.kept)
    recorder.begin(state.round)
    advance((state.round - 1) * len(federation.clients))

    def client_done(note: str) -> None:
        reach("round")
        advance(1, note)

    def round_done(log: RoundLog, following: RoundState) -> None:
        files.save(log, following, recorder.taken())
        recorder.begin(following.round)
        if pace is not None:
            pace.round_done(log.round, log.seconds)

    federated.train(
        federation, rounds, first=state.round, done=round_done, advance=client_done, validate=validate,
        onlooker=onlooker,
    )  # fmt: skip
    recorder.taken()
    federation.deliver()


def _rebuild(
    federation: Federation, files: TrainingFiles, missing: Sequence[int],
    validate: Callable[[Client], float | None] | None,
) -> None:  # fmt: skip
    """Run finished rounds again for what nobody had asked to keep of them; every bit comes out as it was."""
    first = files.before(missing[0] + 1) or federation.state(1)
    federation.resume(first)
    recorder = RoundRecorder(federation.link, missing)

    def begin(state: RoundState) -> None:
        if state.round in missing:
            files.save_state(state)
        recorder.begin(state.round)

    def round_done(log: RoundLog, following: RoundState) -> None:
        crossings = recorder.taken()
        if log.round in missing:
            files.save_crossings(log.round, crossings)
        if log.round < missing[-1]:
            begin(following)

    begin(first)
    federated.train(federation, missing[-1], first=first.round, done=round_done, validate=validate)


def require_trained(root: Path, spec: TrainingSpec, done: int, *, asked: bool = True) -> None:
    """Raises InputError, with the command that goes on, where a round of a training is left.

    Args:
        root: the run's directory.
        done: how many rounds are finished.
        asked: the run's scenario asks for it; else only what this call has set does.
    """
    if done < spec.training.rounds:
        settings = "" if asked else " and the same --set"
        raise InputError(
            f"{root}: its training is not finished ({done} of {spec.training.rounds} rounds): {spec.name}; continue it "
            f"with: pplr-audit train {root / SCENARIO} --out {root}{settings}"
        )
