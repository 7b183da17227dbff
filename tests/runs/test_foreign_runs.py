"""A run from a stranger: whatever a file of it holds, every command ends with what is asked or with one message.

Each file of a small real run is damaged in every way that is thought of here, its checksum made right again as a
stranger would, and given to every command that reads a run.
"""

import functools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load, save
from typer.testing import CliRunner

from pplr_audit import pipeline as audit
from pplr_audit import scenario
from pplr_audit.cli import main as cli
from pplr_audit.errors import InputError
from pplr_audit.runs.documents import validate, validate_part
from pplr_audit.runs.store import Store
from pplr_audit.training import job
from tests.conftest import comparable

FILES = {
    "manifest": "manifest.json",
    "scenario": "scenario.yaml",
    "findings": "findings.json",
    "evidence": "evidence.json",
    "utility": "trainings/{own}/utility.json",
    "users' scores": "trainings/{own}/per_user.safetensors",
    "training": "trainings/{own}/manifest.json",
    "cell": "cells/ridge-front*.json",
    "membership cell": "cells/loss*-outsider-*.json",
    "guess": "guesses/ridge-front*.safetensors",
    "log": "trainings/{own}/rounds/001/log.json",
    "start": "trainings/{own}/rounds/001/state.safetensors",
    "end": "trainings/{own}/rounds/002/state.safetensors",
    "crossings": "trainings/{own}/rounds/001/crossings.safetensors",
    "rival's utility": "trainings/{rival}/utility.json",
    "rival's scores": "trainings/{rival}/per_user.safetensors",
    "list": "checksums.jsonl",
    "events": "events.jsonl",
    "lock": ".pplr-audit.lock",
}
VALUES: list[Any] = [
    None, True, 7, -1, 0.5, 1e308, -1e308, 10**9, 2**62, "", "x", "\u202e<b>", [], {}, [[1], [2, 3]], {"a": {"b": []}}
]  # fmt: skip
GONE = object()


@pytest.fixture(scope="module")
def setting(llama_folder: Path) -> scenario.Scenario:
    """As small as a run can be that leaves every kind of file: early stopping and a rival, too."""
    return scenario.Scenario.model_validate(
        {
            "name": "tiny", "seed": 1,
            "data": {
                "market": {"users": 40, "items": 48, "tastes": 3}, "clients": 2, "history": 3, "audit_users": 24,
                "test_users": 10,
            },
            "model": {
                "backbone": str(llama_folder), "beams": 1, "max_tokens": 256,
                "lora": {"rank": 2, "targets": ["q_proj"]},
            },
            "training": {
                "rounds": 1, "learning_rate": 0.01, "batch_size": 8, "patience": 3, "valid_users": 4,
                "rivals": ["fedavg"],
            },
            "audit": {"victims": 4, "cuts": [[1, 1]], "attacks": [{"ridge": {"prompts": 16, "held_out": 4}}, "loss"]},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def pristine(setting: scenario.Scenario, tmp_path_factory: pytest.TempPathFactory) -> Iterator[audit.AuditResult]:
    """The run; data and model, which are the same for every command here, are made once."""
    with pytest.MonkeyPatch.context() as patched:
        made: dict[str, Any] = {}

        def once(make: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(make)
            def remembered(*args: Any, **named: Any) -> Any:
                key = repr((make.__name__, args[0], sorted(named)))
                if key not in made:
                    made[key] = make(*args, **named)
                return made[key]

            return remembered

        patched.setattr(job, "prepare", once(job.prepare))
        patched.setattr(job, "build", once(job.build))
        yield audit.run(setting, tmp_path_factory.mktemp("pristine") / "run")


class Foreign:
    """A copy of the run, to be damaged again and again, and what the commands say of it."""

    def __init__(self, result: audit.AuditResult, setting: scenario.Scenario, folder: Path) -> None:
        self.result, self.root, self._folder = result, folder / "run", folder
        (folder / "scenario.yaml").write_text(yaml.safe_dump(setting.model_dump(mode="json")))

    def fresh(self, without: tuple[str, ...] = ()) -> None:
        """The run as it was, but for files that a kill may have kept it from writing."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.result.directory, self.root)
        for pattern in without:
            for file in self.root.glob(pattern):
                self._record(str(file.relative_to(self.root)), {})

    def path(self, kind: str) -> str:
        """The path of a kind of file inside the run."""
        rival, own = sorted((self.root / "trainings").iterdir())  # fedavg and pplr
        pattern = FILES[kind].format(own=own.name, rival=rival.name)
        (found,) = self.root.glob(pattern)
        return str(found.relative_to(self.root))

    def write(self, name: str, data: bytes) -> None:
        """Other bytes, and their checksum in the list."""
        (self.root / name).write_bytes(data)
        self._record(name, {"sha256": sha256(data).hexdigest(), "size": len(data)})

    def _record(self, name: str, entry: dict[str, Any]) -> None:
        """Into the list of the folder that keeps one: the run's, or a training's own."""
        parts = Path(name).parts
        kept = 2 if parts[0] == "trainings" else 0
        with self.root.joinpath(*parts[:kept], "checksums.jsonl").open("a") as file:
            file.write(json.dumps({"path": str(Path(*parts[kept:])), **entry}) + "\n")

    def commands(self, *only: str) -> Iterator[list[str]]:
        """Those that read a run; what they ask for is written outside where it can be."""
        scenario_file = str(self._folder / "scenario.yaml")
        ways = {
            "report": ["report", str(self.root), "--out", str(self._folder / "out"), "--format", "html,json"],
            "redacted": ["report", str(self.root), "--redact"],
            "attack": ["attack", str(self.root)],
            "train": ["train", scenario_file, "--out", str(self.root), "--json"],
            "run": ["run", scenario_file, "--out", str(self.root), "--json"],
        }
        yield from (ways[way] for way in only or ways)

    def outcomes(self, name: str, *only: str) -> list[int]:
        """The exit codes of commands, each of them done or refused with one message that names ``name``."""
        codes = []
        for command in self.commands(*only):
            done = CliRunner().invoke(cli.app, command)
            said = f"{command[0]}: {done.stderr}"
            assert done.exit_code in (0, 2), said
            if done.exit_code == 2:
                # Before the message there may stand what has changed on the machine.
                *notes, message = done.stderr.splitlines()
                file = Path(name)
                assert name in message or (str(file.parent) in message and file.name in message), said
                assert "internal error" not in message, said
                assert all("differs in its last digits" in note or "not noted" in note for note in notes), said
                assert len(message) < 800, said
            codes.append(done.exit_code)
        return codes


@pytest.fixture
def foreign(pristine: audit.AuditResult, setting: scenario.Scenario, tmp_path: Path) -> Foreign:
    return Foreign(pristine, setting, tmp_path)


def readers(kind: str, *more: str) -> tuple[str, ...]:
    """The commands that read a kind of file."""
    if kind in ("findings", "evidence"):
        return ("report",)
    return (
        ("report", "redacted", "attack", *more) if kind in ("manifest", "list", "lock", "events") else ("attack", *more)
    )


OUTSIDE = b"a file of somebody else's, without an end of its last line"


def replaced(file: Path, how: str, outside: Path) -> None:
    """Something else in the place of a file, or its bytes damaged, its checksum left as it was."""
    data = file.read_bytes()
    if how == "shortened":
        file.write_bytes(data[: len(data) // 2])
        return
    if how == "emptied":
        file.write_bytes(b"")
        return
    file.unlink()
    if how == "a link":
        file.symlink_to(outside)
    elif how == "a pipe":
        os.mkfifo(file)
    elif how == "a folder":
        file.mkdir()


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_none_is_one_message_and_nothing_outside_is_touched(
    foreign: Foreign, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(OUTSIDE)
    for how in ("gone", "emptied", "shortened", "a link", "a pipe", "a folder"):
        foreign.fresh(("cells/ridge-front*",) if kind in ("guess", "start") else ())
        name = foreign.path(kind)
        replaced(foreign.root / name, how, outside)
        # Without its list, or with another, a run is no run or lacks what is named.
        named = str(foreign.root) if kind in ("list", "manifest") else name
        codes = foreign.outcomes(named, *readers(kind, "run"))
        assert outside.read_bytes() == OUTSIDE
        harmless = kind in ("lock", "events") and how in ("gone", "emptied", "shortened")
        if not harmless:
            assert 2 in codes, how


WRONG_JSON = [
    b"", b"{", b"[]", b"[1]", b"null", b"7", b'"x"', b"{}", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1, "a": 2}',
    b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", b'{"a": ' + b"9" * 9_999 + b"}",
]  # fmt: skip
JSON = [kind for kind, path in FILES.items() if path.endswith(".json")]
TENSORS = [kind for kind, path in FILES.items() if path.endswith(".safetensors")]


@pytest.mark.parametrize("kind", JSON)
def test_what_is_no_such_json_is_one_message_though_its_checksum_is_right(foreign: Foreign, kind: str) -> None:
    for data in WRONG_JSON:
        foreign.fresh()
        name = foreign.path(kind)
        foreign.write(name, data)
        assert 2 in foreign.outcomes(name, *readers(kind)), data[:20]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value of a document stands; of a list its first and its last."""
    if at:
        yield at
    inner: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and value:
        inner = {0: value[0], len(value) - 1: value[-1]}.items()
    for key, each in inner:
        yield from places(each, (*at, key))


def changed(document: Any, at: tuple[Any, ...], new: Any) -> Any:
    """The document with another value, or without it."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if new is GONE:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return copy


DRAWN = {"findings": 40, "evidence": 30}


@pytest.mark.parametrize("kind", JSON)
def test_a_field_of_another_kind_is_one_message_or_does_not_matter(foreign: Foreign, kind: str) -> None:
    foreign.fresh()
    name = foreign.path(kind)
    document = json.loads((foreign.root / name).read_text())
    wrong = [(at, new) for at in places(document) for new in (*VALUES, GONE)]
    for at, new in random.Random(kind).sample(wrong, min(len(wrong), DRAWN.get(kind, 12))):
        foreign.fresh()
        foreign.write(name, json.dumps(changed(document, at, new)).encode())
        foreign.outcomes(name, readers(kind)[-1])


def tensor_changes(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The same file with one thing in it that is wrong."""
    arrays = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    said: dict[str, str] = header.get("__metadata__", {})
    yield "no metadata", save(arrays)
    for key in said:
        yield f"without {key}", save(arrays, {k: v for k, v in said.items() if k != key})
        for wrong in ("", "[]", "{}", '{"steps": -1}', "NaN"):
            yield f"{key}: {wrong}", save(arrays, {**said, key: wrong})
    yield "no arrays", save({}, said)
    for key in random.Random(0).sample(sorted(arrays), min(len(arrays), 1)):
        array = arrays[key]
        others = {
            "renamed": {f"{key}x": array}, "gone": {}, "of one value": {key: array.reshape(-1)[:1]},
            "flat": {key: np.append(array.reshape(-1), array.reshape(-1)[:1])}, "whole": {key: array.astype(np.int8)},
            "nested": {key: array[None]}, "of none": {key: np.zeros((0, 1 << 40), np.float32)},
        }  # fmt: skip
        for what, other in others.items():
            yield f"{key} {what}", save({**{k: v for k, v in arrays.items() if k != key}, **other}, said)
    yield "cut off", data[:-1]
    yield "a long header", (2**40).to_bytes(8, "little") + data[8:]


@pytest.mark.parametrize("kind", TENSORS)
def test_another_tensor_file_is_one_message_or_does_not_matter(foreign: Foreign, kind: str) -> None:
    foreign.fresh()
    name = foreign.path(kind)
    refused = 0
    for what, data in tensor_changes((foreign.root / name).read_bytes()):
        foreign.fresh(() if "scores" in kind else ("cells/ridge-front*",))
        foreign.write(name, data)
        refused += 2 in foreign.outcomes("per_user.safetensors" if "scores" in kind else name, "attack")
        assert refused, what
    assert refused > 5


def test_names_in_the_list_are_no_paths_elsewhere_and_rounds_are_numbers(foreign: Foreign) -> None:
    for path in ("trainings/{own}/rounds/zzz/state.safetensors", "trainings/{own}/rounds/999999999/state.safetensors"):
        foreign.fresh()
        own = Path(foreign.path("log")).parts[1]
        name = path.format(own=own)
        (foreign.root / name).parent.mkdir()
        foreign.write(name, b"")
        foreign.outcomes(name, "attack")


def test_a_huge_count_takes_no_memory(foreign: Foreign) -> None:
    foreign.fresh()
    document = json.loads((foreign.root / "findings.json").read_text())
    for place in (("run", "layers"), ("run", "rounds"), ("run", "cut", "front"), ("costs", 0, "cut", "front")):
        for size in (10**9, 10**18):
            foreign.fresh()
            foreign.write("findings.json", json.dumps(changed(document, place, size)).encode())
            foreign.outcomes("findings.json", "report")


def test_the_bounds_of_the_schema_do_not_refuse_what_a_run_finds(pristine: audit.AuditResult) -> None:
    validate(pristine.document)
    with pytest.raises(InputError, match=r"utility: \$\[0\]\.n: "):
        validate_part("utility", [{**pristine.document["utility"][0], "n": 2**60}])


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files with their times."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in [*files]}


def test_a_report_to_another_folder_needs_no_write_to_the_run(foreign: Foreign, tmp_path: Path) -> None:
    foreign.fresh()
    (foreign.root / ".pplr-audit.lock").unlink()
    folders = [foreign.root, *(path for path in foreign.root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    before = snapshot(foreign.root)
    command = ["report", str(foreign.root), "--format", "html,md,json", "--out", str(tmp_path / "new" / "out")]
    done = CliRunner().invoke(cli.app, command)
    for folder in folders:
        folder.chmod(0o700)
    assert done.exit_code == 0, done.stderr
    assert snapshot(foreign.root) == before
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == [
        "findings.json", "report.html", "report.md",
    ]  # fmt: skip
    for name in ("report.html", "report.md"):
        assert (tmp_path / "new" / "out" / name).read_bytes() == (foreign.root / name).read_bytes()
    assert json.loads((tmp_path / "new" / "out" / "findings.json").read_text()) == json.loads(
        (foreign.root / "findings.json").read_text()
    )


def test_a_report_is_not_written_over_a_run_by_out(foreign: Foreign) -> None:
    foreign.fresh()
    before = snapshot(foreign.root)
    done = CliRunner().invoke(cli.app, ["report", str(foreign.root), "--out", str(foreign.root)])
    assert done.exit_code == 2
    assert "--out" in done.stderr
    assert "is a run" in done.stderr
    assert snapshot(foreign.root) == before


def test_a_run_of_an_earlier_version_opens(foreign: Foreign, pristine: audit.AuditResult) -> None:
    foreign.fresh()
    foreign.write("coins.json", b'{"u1": true}\n')
    log = foreign.path("log")
    document = json.loads((foreign.root / log).read_text())
    for later in ("metrics", "receivers", "catalogue"):
        del document[later]
    foreign.write(log, json.dumps(document).encode())
    foreign.root.chmod(0o755)
    assert comparable(audit.attack(foreign.root).document) == comparable(pristine.document)
    assert Store.load(foreign.root).exists("coins.json")
