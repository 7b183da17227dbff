"""Reading and writing of scenarios: YAML, overrides, digests."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pplr_audit import scenarios
from pplr_audit.errors import InputError
from pplr_audit.scenario import old_names, plugins
from pplr_audit.scenario.messages import dotted, explain
from pplr_audit.scenario.paths import expanded
from pplr_audit.scenario.schema import Scenario
from pplr_audit.scenario.yaml_reader import MAX_BYTES, Document, Loc, override, parse, text_of


def load(source: str, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario of a shipped name or a YAML file, with ``a.b=value`` overrides applied.

    An old name of a strategy is accepted, with one FutureWarning that says where it stands and what it is now.

    Relative paths in a file start at that file, in overrides at the current folder; the scenario holds absolute ones.

    Raises:
        InputError: one line for each wrong field, with the file and line or the override it comes from.
    """
    text, name, folder = _read(source)
    document = parse(text, name)
    _require_fields(document)
    return _resolved(document, overrides, folder)


def of_data(path: str, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario of all defaults on the data at ``path``, with overrides. Raises InputError as `load` does."""
    loc = ("data", "path")
    document = Document("PATH", {"data": {"path": path}}, overrides={loc: "PATH"})
    return _resolved(document, overrides, Path.cwd())


def of_model(overrides: Sequence[str]) -> Scenario:
    """The scenario of all defaults with overrides. Raises InputError as `load` does."""
    return _resolved(Document("MODEL", {}), overrides, Path.cwd())


def from_text(text: str, name: str = "scenario.yaml") -> Scenario:
    """Read what ``dump`` wrote, also where its plugins are not installed. Raises InputError that names ``name`` and
    line.
    """
    document = parse(text, name)
    _require_fields(document)
    return _validate(document)


def asked_anew(scenario: Scenario, settings: Sequence[str]) -> Scenario:
    """Return the scenario with other fields of its audit section, each as ``audit.field=value``.

    Raises InputError for a field of another section, which would be another training, and as `load` does.
    """
    for setting in settings:
        if not setting.strip().startswith("audit."):
            raise InputError(
                f"--set {setting}: only fields of audit can change here, as the trainings stay what they are"
                " (accepted: audit.FIELD=VALUE)"
            )
    return _resolved(Document("scenario.yaml", scenario.model_dump(mode="json")), settings, Path.cwd())


def dump(scenario: Scenario) -> str:
    """The whole scenario as YAML, every default written out: ``from_text(dump(s)) == s``."""
    return text_of(scenario.model_dump(mode="json"))


def digest(scenario: Scenario) -> str:
    """SHA-256 of what a run is known by, in hexadecimal: its data, model, training without rivals, and seed.

    What is asked of it (``audit``, ``defenses``, ``report``, rivals) may change from call to call.
    """
    # Without defaults: a field that a later version adds does not make another run of an older one.
    training = {*type(scenario.training).model_fields} - {"rivals"}
    known_by: Any = {"data": True, "model": True, "training": training, "seed": True}
    values = scenario.model_dump(mode="json", exclude_defaults=True, include=known_by)
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(canonical.encode()).hexdigest()


def _read(source: str) -> tuple[str, str, Path]:
    """Text, the name for messages, and the folder that relative paths start at."""
    known = tuple(scenarios.shipped())
    if source in known:
        return scenarios.text(source), f"{source}.yaml", Path.cwd()
    file = expanded(source, "SCENARIO")
    if not file.is_file():
        if file.is_dir():
            raise InputError(f"{source}: a folder; give a scenario's YAML file or one of {', '.join(known)}")
        raise InputError(plugins.unknown(f"{source}: no such scenario and no such file", source, known))
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InputError(f"{source}: larger than {MAX_BYTES // 1000} kB; a scenario is a short file")
        return file.read_text(encoding="utf-8-sig"), source, file.absolute().parent
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{source}: cannot be read: {error.strerror}") from None


def _resolved(document: Document, overrides: Sequence[str], folder: Path) -> Scenario:
    for setting in overrides:
        override(document, setting)
    _make_absolute(document, folder)
    scenario = _validate(document)
    wrong = [f"{document.place(loc)}: {message}" for loc, message in _unknown_names(scenario)]
    if wrong:
        raise InputError("\n".join(wrong))
    _note_old_name(document)
    return scenario


def _note_old_name(document: Document) -> None:
    for loc, name in old_names.met(document.values.get("training")):
        place = document.place(("training", *loc))
        today = old_names.STRATEGIES[name]
        said = f"{place}: {dotted(('training', *loc))}: {name} is the old name of {today} and accepted as that"
        warnings.warn(said, FutureWarning, stacklevel=4)
        return  # one is enough


def _require_fields(document: Document) -> None:
    """An empty file stands for all the defaults; a file of anything but fields is refused."""
    if document.values is None:
        document.values = {}
    if not isinstance(document.values, dict):
        raise InputError(f"{document.name}: holds no fields; accepted: {', '.join(Scenario.model_fields)}")


def _validate(document: Document) -> Scenario:
    try:
        return Scenario.model_validate(document.values)
    except ValidationError as error:
        raise InputError(explain(error, document, _schema())) from None


@cache
def _schema() -> dict[str, Any]:
    return Scenario.model_json_schema()


def _make_absolute(document: Document, folder: Path) -> None:
    for section, field, names in (("data", "path", ("synthetic",)), ("model", "backbone", ("tiny-llama", "minilm"))):
        fields = document.values.get(section)
        value = fields.get(field) if isinstance(fields, dict) else None
        if not isinstance(value, str) or not value or value in names:
            continue
        base = Path.cwd() if document.is_overridden((section, field)) else folder
        place = f"{document.place((section, field))}: {section}.{field}"
        path = expanded(base / expanded(value, place), place)
        # ``org/name`` is a name on the hub unless a folder of that name is there.
        if field == "path" or value[0] in "./~" or path.exists():
            fields[field] = os.path.abspath(path)


def _unknown_names(scenario: Scenario) -> Iterator[tuple[Loc, str]]:
    """Plugins that are not installed, or that several packages have.

    Asked when a scenario is loaded, not when an old run's is read again.
    """
    asked: list[tuple[plugins.Kind, Loc, str]] = [("strategies", ("training", "strategy"), scenario.training.strategy)]
    if scenario.data.reader != "auto":
        asked += [("readers", ("data", "reader"), name) for _, name in _names_in([scenario.data.reader])]
    asked += [
        ("strategies", ("training", "rivals", *at), name) for at, name in _names_in(scenario.training.rivals or ())
    ]
    asked += [("attacks", ("audit", "attacks", *at), name) for at, name in _names_in(scenario.audit.attacks)]
    asked += [("defenses", ("defenses", *at), name) for at, name in _names_in(scenario.defenses)]
    for kind, loc, name in asked:
        refused = plugins.refusal(kind, name, dotted(loc))
        if refused is not None:
            yield loc, refused


def _names_in(entries: Sequence[Any], *at: int) -> Iterator[tuple[Loc, str]]:
    for position, entry in enumerate(entries):
        if isinstance(entry, str):
            yield (*at, position), entry
        elif isinstance(entry, Mapping):
            yield from (((*at, position), name) for name in entry)
        else:  # several, composed
            yield from _names_in(entry, *at, position)
