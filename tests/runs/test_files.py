"""A run directory from a stranger: nothing outside is read or written through it, and nothing in it blocks."""

import json
import os
import signal
import stat
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from pplr_audit.errors import InputError
from pplr_audit.runs import files
from pplr_audit.runs import store as stores
from pplr_audit.runs.atomic import write_whole
from pplr_audit.runs.parsing import DEEPEST, parsed, shaped, understood
from pplr_audit.runs.store import Store

DIGEST = "a" * 64


def opened(root: Path) -> Store:
    return Store.open(root, "name: x\n", DIGEST)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run with a file at its top and one in a folder."""
    with opened(tmp_path / "run") as store:
        store.write_json("top.json", {"a": 1})
        store.write_tensors("below/deep.safetensors", {"x": np.ones(3)}, {"k": "v"})
        store.event("start")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def no_wait() -> Iterator[None]:
    """Whoever waits for a pipe fails here."""

    def late(*_: object) -> None:
        raise AssertionError("waited")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


OWN = (".pplr-audit.lock", "events.jsonl", "checksums.jsonl", "manifest.json")


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("opening", [opened, lambda root: Store.load(root, writable=True)])
def test_a_link_in_a_runs_place_is_refused_and_what_it_points_to_stays(
    run: Path, tmp_path: Path, name: str, opening: Callable[[Path], Store]
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes((run / name).read_bytes() + b"not a whole line")
    before = outside.read_bytes()
    (run / name).unlink()
    (run / name).symlink_to(outside)
    with pytest.raises(InputError, match=rf"{name}: a link; a run has a regular file there"):
        opening(run)
    assert outside.read_bytes() == before
    (run / name).unlink()
    (run / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=rf"{name}: a link"):
        opening(run)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [".pplr-audit.lock", "events.jsonl"])
def test_a_file_with_a_second_name_is_not_written_in_place(run: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine\nand no line end")
    (run / name).unlink()
    os.link(outside, run / name)
    with pytest.raises(InputError, match=rf"{name}: has a second name"):
        opened(run)
    assert outside.read_text() == "mine\nand no line end"


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
@pytest.mark.parametrize("name", [*OWN, "top.json", "below/deep.safetensors"])
def test_a_pipe_a_folder_or_a_link_is_one_message_that_names_it(run: Path, name: str, kind: str) -> None:
    (run / name).unlink()
    if kind == "pipe":
        os.mkfifo(run / name)
    elif kind == "folder":
        (run / name).mkdir()
    else:
        (run / name).symlink_to("/dev/zero")

    def read_all() -> None:
        with Store.load(run) as store:
            store.read_json("top.json")
            store.read_tensors("below/deep.safetensors")
            store.events()
        opened(run).close()

    with pytest.raises(InputError, match=f"{name}: a {kind}; a run has a regular file there"):
        read_all()


def test_no_folder_of_a_run_is_a_link(run: Path, tmp_path: Path) -> None:
    (run / "below").rename(tmp_path / "elsewhere")
    (run / "below").symlink_to(tmp_path / "elsewhere")
    with opened(run) as store:
        for act in (
            lambda: store.read_tensors("below/deep.safetensors"),
            lambda: store.write_text("below/deep.safetensors", "x"),
            lambda: store.remove("below/deep.safetensors"),
        ):
            with pytest.raises(InputError, match="run/below: a link or a file; a run has a folder there"):
                act()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["deep.safetensors"]


def test_an_unfinished_file_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    (tmp_path / f".x.{os.getpid()}.pplr-audit-tmp").symlink_to(tmp_path / "outside")
    (tmp_path / "x").symlink_to(tmp_path / "outside")
    write_whole(tmp_path, "x", b"new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "x").read_text() == "new"


def test_a_folder_in_the_place_of_a_file_to_write_is_wrong_input(run: Path) -> None:
    (run / "report.md").mkdir()
    with opened(run) as store, pytest.raises(InputError, match=r"report\.md: cannot be written: Is a directory"):
        store.write_text("report.md", "x")


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/hostname", "a/../../b", ""])
def test_a_list_that_names_a_file_outside_is_refused(run: Path, path: str) -> None:
    record = {"path": path, "sha256": "0" * 64, "size": 1}
    with (run / "checksums.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"checksums\.jsonl, line \d: unreadable"):
        Store.load(run)


def grown(file: Path, size: int) -> None:
    """Larger than memory, and no room taken on the disk."""
    with file.open("r+b") as opened_file:
        opened_file.truncate(size)


def test_no_file_is_read_that_is_larger_than_the_run_recorded(run: Path) -> None:
    grown(run / "top.json", 1 << 42)
    with Store.load(run) as store, pytest.raises(InputError, match=r"top\.json is truncated or altered"):
        store.read_json("top.json")


@pytest.mark.parametrize("name", ["events.jsonl", "checksums.jsonl"])
def test_the_runs_own_lists_are_bounded(run: Path, name: str) -> None:
    grown(run / name, 1 << 42)
    with pytest.raises(InputError, match=rf"{name}: 4,398,046,511,104 bytes, where a run has at most 268,435,456"):
        opened(run)


def test_a_recorded_size_is_bounded_too(run: Path) -> None:
    for name, size in (("top.json", 1 << 29), ("below/deep.safetensors", 1 << 60)):
        record = {"path": name, "sha256": "0" * 64, "size": size}
        with (run / "checksums.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
    with Store.load(run) as store:
        with pytest.raises(InputError, match=r"top\.json: 536,870,912 bytes, where a run has at most"):
            store.read_json("top.json")
        with pytest.raises(InputError, match=r"deep\.safetensors: 1,152,.* bytes, where a run has at most"):
            store.read_tensors("below/deep.safetensors")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_run_is_for_its_owner_alone_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with opened(tmp_path / "runs" / "one") as store:
            store.write_json("below/deeper/x.json", {})
            store.event("start")
    finally:
        os.umask(before)
    root = tmp_path / "runs" / "one"
    assert {mode(path) for path in [root, *root.rglob("*")] if path.is_dir()} == {0o700}
    assert {mode(path) for path in root.rglob("*") if path.is_file()} == {0o600}
    assert mode(tmp_path / "runs") == 0o777  # names of runs are no secret, and it may hold other things


@pytest.mark.parametrize("opening", [opened, lambda root: Store.load(root, writable=True)])
def test_a_directory_that_was_there_is_closed_to_others(run: Path, opening: Callable[[Path], Store]) -> None:
    run.chmod(0o755)
    Store.load(run).close()
    assert mode(run) == 0o755, "who reads changes nothing"
    opening(run).close()
    assert mode(run) == 0o700


def test_where_a_directory_cannot_be_closed_to_others_that_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)  # as on file systems without modes
    with pytest.warns(RuntimeWarning, match=r"other users of this machine can read it \(mode 755\)"):
        opened(run).close()


BAD_JSON = {
    "not JSON": b"{",
    "empty": b"",
    "not UTF-8": b'{"a": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "a text": b'"x"',
    "nested deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested": b'{"a": ' + b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1) + b"}",
    "no number": b'{"a": NaN}',
    "infinite": b'{"a": [-Infinity]}',
    "beyond floats": b'{"a": 1e999}',
    "beyond 64 bits": b'{"a": 9223372036854775808}',
    "beyond all bounds": b'{"a": ' + b"9" * 100_000 + b"}",
    "twice": b'{"a": 1, "a": 2}',
    "half a pair": b'{"a": "\\ud800"}',
    "half a pair as a key": b'{"\\udfff": 1}',
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_what_no_run_writes_as_json_is_one_message_that_names_the_file(name: str) -> None:
    with pytest.raises(InputError, match=r"x\.json: does not hold what a run writes there: .+; restore it") as caught:
        parsed(BAD_JSON[name], "x.json")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_what_runs_write_as_json_is_read() -> None:
    said = {"a": [1, -2.5, None, True, "ü", 2**63 - 1, -(2**63) + 1], "b": {"c": []}}
    assert parsed(json.dumps(said).encode(), "x.json") == said


def test_a_value_of_another_shape_is_named_with_its_field() -> None:
    with pytest.raises(InputError, match=r"x\.json: .*a\.0: .*integer"):
        shaped({"a": ["1"]}, dict[str, list[int]], "x.json")
    assert shaped({"a": [1]}, dict[str, list[int]], "x.json") == {"a": [1]}


def test_what_is_misunderstood_is_said_of_the_file() -> None:
    for wrong in (lambda: {}["a"], lambda: int("x"), lambda: None + 1, lambda: 1 / 0, lambda: [].b):  # type: ignore
        with pytest.raises(InputError, match=r"x\.json: does not hold"), understood("x.json"):
            wrong()


def tensor_files() -> dict[str, bytes]:
    """Tensor files that are none."""

    def file(header: object, body: bytes = b"", size: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return (len(text) if size is None else size).to_bytes(8, "little") + text + body

    x = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "empty": b"",
        "short": b"\x01\x00",
        "a header without end": file({"x": x}, bytes(8), size=2**63),
        "a header that is cut off": file({"x": x}, size=1000),
        "no header": file(b"not json", bytes(8)),
        "a list": file([1], bytes(8)),
        "nested": file(b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        "an unknown type": file({"x": {**x, "dtype": "F33"}}, bytes(8)),
        "too large a shape": file({"x": {**x, "shape": [2**40, 2**40]}}, bytes(8)),
        "a negative shape": file({"x": {**x, "shape": [-2]}}, bytes(8)),
        "another shape": file({"x": {**x, "shape": [3]}}, bytes(8)),
        "outside": file({"x": {**x, "data_offsets": [0, 2**40]}}, bytes(8)),
        "backwards": file({"x": {**x, "data_offsets": [8, 0]}}, bytes(8)),
        "overlapping": file({"x": x, "y": x}, bytes(8)),
        "metadata of numbers": file({"__metadata__": {"a": 1}, "x": x}, bytes(8)),
        "metadata of a list": file({"__metadata__": [], "x": x}, bytes(8)),
    }


@pytest.mark.parametrize("name", tensor_files())
def test_what_is_no_tensor_file_is_one_message_that_names_it(run: Path, name: str) -> None:
    with opened(run) as store:
        store.write_bytes("t.safetensors", tensor_files()[name])
        for read in (store.read_tensors, store.read_arrays, store.read_metadata):
            if read == store.read_metadata and name in (
                "an unknown type", "too large a shape", "a negative shape", "another shape", "outside", "backwards",
                "overlapping",
            ):  # fmt: skip
                continue
            with pytest.raises(InputError, match=r"t\.safetensors: does not hold what a run writes there") as caught:
                read("t.safetensors")
            assert len(str(caught.value)) < 600


def test_the_checksum_stays_what_decides(run: Path) -> None:
    data = b'{"a": 2}\n'
    (run / "top.json").write_bytes(data)
    with pytest.raises(InputError, match="truncated or altered"):
        Store.load(run).read_json("top.json")
    record = {"path": "top.json", "sha256": sha256(data).hexdigest(), "size": len(data)}
    with (run / "checksums.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    assert Store.load(run).read_json("top.json") == {"a": 2}


def test_limits_are_what_the_messages_say() -> None:
    assert files.LARGEST_TEXT == 268_435_456
    assert stores._memory() > 1 << 28
