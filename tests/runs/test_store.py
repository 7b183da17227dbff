"""A run directory stays whole whatever happens to it, and says so when it is not."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pplr_audit.errors import InputError, RunError
from pplr_audit.runs.store import Store

DIGEST = "a" * 64
OTHER = "b" * 64


def _open(root: Path) -> Store:
    return Store.open(root, "name: x\n", DIGEST)


def _listing(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_what_is_written_reads_back_in_a_later_process(tmp_path: Path) -> None:
    with _open(tmp_path / "deep" / "run") as store:
        store.write_bytes("a/b/c.bin", b"\x00\xff")
        store.write_text("t.txt", "héllo\n")
        store.write_json("j.json", {"z": 1, "a": [1.5, None, "ü"]})
    with _open(tmp_path / "deep" / "run") as store:
        assert store.read_bytes("a/b/c.bin") == b"\x00\xff"
        assert store.read_text("t.txt") == "héllo\n"
        assert list(store.read_json("j.json")) == ["z", "a"]
        assert store.read_text("scenario.yaml") == "name: x\n"
        assert store.paths("a") == ("a/b/c.bin",)
        assert store.exists("a/./b/c.bin")
        assert not store.exists("a/b")


def test_tensors_of_both_kinds_keep_shape_type_and_metadata(tmp_path: Path) -> None:
    base = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    with _open(tmp_path) as store:
        store.write_tensors("t.safetensors", {"part": base[:, :1], "tied": base, "np": np.eye(2)}, {"b": "1", "a": "é"})
        read = store.read_tensors("t.safetensors")
        assert torch.equal(read["part"], base[:, :1])
        assert read["tied"].dtype is torch.bfloat16
        assert read["np"].dtype is torch.float64
        assert store.read_metadata("t.safetensors") == {"a": "é", "b": "1"}
        store.write_tensors("n.safetensors", {"x": np.arange(3)[::-1]})
        assert store.read_arrays("n.safetensors")["x"].tolist() == [2, 1, 0]
        assert store.read_metadata("n.safetensors") == {}


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    metadata = {str(number): "x" for number in range(20)}
    with _open(tmp_path) as store:
        for number in range(4):
            store.write_tensors(f"{number}", {"x": np.ones(3), "y": np.ones(2)}, metadata)
        assert len({store.read_bytes(f"{number}") for number in range(4)}) == 1


def test_numbers_that_are_none_are_not_written_as_json(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        with pytest.raises(ValueError, match="JSON"):
            store.write_json("x.json", {"loss": float("nan")})
        assert not store.exists("x.json")


def test_a_removed_file_is_gone_and_can_be_written_again(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.write_text("x", "1")
        store.remove("x")
        store.remove("never there")
        assert not store.exists("x")
        assert not (tmp_path / "x").exists()
        store.write_text("x", "2")
    with _open(tmp_path) as store:
        assert store.read_text("x") == "2"


def test_the_manifest_keeps_what_it_has(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.update_manifest(versions={"torch": "2"})
        store.update_manifest(seconds={"training": 3})
    with Store.load(tmp_path) as store:
        manifest = store.manifest
        assert manifest.pop("created")
        assert manifest == {
            "schema": "pplr-audit/run/2",
            "digest": DIGEST,
            "versions": {"torch": "2"},
            "seconds": {"training": 3},
        }


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    with _open(tmp_path) as store:
        store.write_tensors("rounds/000/round.safetensors", {"x": np.ones(100)})
    file = tmp_path / "rounds/000/round.safetensors"
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + b"\x01")
    words = "is missing" if damage == "missing" else "is truncated or altered"
    for store in (_open(tmp_path), Store.load(tmp_path)):
        with store, pytest.raises(InputError, match=f"rounds/000/round.safetensors {words}; restore it"):
            store.read_tensors("rounds/000/round.safetensors")


def test_a_file_that_was_never_recorded_does_not_exist(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        (tmp_path / "stray.json").write_text("{}")
        assert not store.exists("stray.json")
        with pytest.raises(InputError, match=r"stray\.json: not in this run"):
            store.read_json("stray.json")


def test_another_scenario_is_refused(tmp_path: Path) -> None:
    _open(tmp_path).close()
    before = _listing(tmp_path)
    with pytest.raises(InputError, match=r"another run \(aaaaaaaa, not bbbbbbbb\).*; choose another .* --out"):
        Store.open(tmp_path, "name: y\n", OTHER)
    assert _listing(tmp_path) == before
    _open(tmp_path).close()


@pytest.mark.parametrize("name", ["thesis.tex", "scenario.yaml", "manifest.json", ".hidden"])
def test_a_directory_of_something_else_is_left_untouched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run"):
        _open(tmp_path)
    assert _listing(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--out DIR"):
            _open(root)


def test_a_run_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.write_json("manifest.json", {"schema": "pplr-audit/run/3", "digest": DIGEST})
    for opening in (_open, Store.load):
        with pytest.raises(InputError, match=r"manifest\.json: schema 'pplr-audit/run/3', this version"):
            opening(tmp_path)
    ledger = tmp_path / "checksums.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"checksums/1", b"checksums/2"))
    with pytest.raises(InputError, match=r"checksums\.jsonl: schema 'pplr-audit/checksums/2', this version"):
        _open(tmp_path)


def test_what_is_no_run_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        Store.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not a run of pplr-audit \(it has no checksums\.jsonl\)"):
        Store.load(tmp_path)
    _open(tmp_path / "run").close()
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"it has no manifest\.json"):
        Store.load(tmp_path / "run")


def test_an_unreadable_ledger_is_named_with_its_line(tmp_path: Path) -> None:
    _open(tmp_path).close()
    ledger = tmp_path / "checksums.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole + b"not json\n")
    with pytest.raises(InputError, match=r"checksums\.jsonl, line 4: unreadable"):
        Store.load(tmp_path)
    ledger.write_bytes(b"")
    with pytest.raises(InputError, match=r"checksums\.jsonl: empty"):
        Store.load(tmp_path)
    ledger.write_bytes(whole + b'{"path": "half writ')
    Store.load(tmp_path).close()
    _open(tmp_path).close()
    assert ledger.read_bytes() == whole


def test_a_run_loaded_for_reading_writes_nothing(tmp_path: Path) -> None:
    _open(tmp_path).close()
    before = {name: (tmp_path / name).read_bytes() for name in _listing(tmp_path)}
    with Store.load(tmp_path) as store:
        for write in (
            lambda: store.write_text("x", ""),
            lambda: store.remove("manifest.json"),
            lambda: store.event("x"),
        ):
            with pytest.raises(RunError, match="for reading only"):
                write()
    assert before == {name: (tmp_path / name).read_bytes() for name in _listing(tmp_path)}


def test_a_reader_follows_the_process_that_writes(tmp_path: Path) -> None:
    with _open(tmp_path) as writer:
        writer.write_text("x", "1")
        with Store.load(tmp_path) as reader:
            writer.write_text("x", "22")
            assert reader.read_text("x") == "22"


def test_two_processes_cannot_run_the_same_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pplr_audit.runs.store import Store\n"
        f"store = Store.open(Path({str(tmp_path)!r}), 'name: x\\n', {DIGEST!r})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match=rf"another process is running it \(id {other.pid}\)"):
            _open(tmp_path)
        with pytest.raises(InputError, match="another process"):
            Store.load(tmp_path, writable=True)
        Store.load(tmp_path).close()
        other.kill()
    _open(tmp_path).close()


@pytest.mark.parametrize("path", ["", ".", "/etc/x", "../x", "a/../../x", "a\0b"])
def test_no_path_leads_out_of_the_run(tmp_path: Path, path: str) -> None:
    with _open(tmp_path / "run") as store, pytest.raises(InputError, match="not a path inside the run directory"):
        store.write_text(path, "x")
    assert _listing(tmp_path / "run") == [".pplr-audit.lock", "checksums.jsonl", "manifest.json", "scenario.yaml"]


def test_no_link_leads_out_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    with _open(tmp_path / "run") as store:
        (tmp_path / "run" / "link").symlink_to(tmp_path / "outside")
        with pytest.raises(InputError, match=r"run/link: a link or a file; a run has a folder there"):
            store.write_text("link/x", "x")
    assert _listing(tmp_path / "outside") == []


@pytest.mark.parametrize("path", ["checksums.jsonl", "events.jsonl", ".pplr-audit.lock", "x.pplr-audit-tmp"])
def test_the_stores_own_files_are_not_written_by_others(tmp_path: Path, path: str) -> None:
    with _open(tmp_path) as store, pytest.raises(InputError, match="kept by the run directory itself"):
        store.write_text(path, "x")


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_is_named_and_leaves_everything_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with _open(tmp_path) as store:
        store.write_text("old.txt", "old")
        before = _listing(tmp_path)
        for name in ("old.txt", "new.txt"):
            with monkeypatch.context() as patched:
                patched.setattr(os, call, full)
                with pytest.raises(RunError, match=f"{name}: cannot be written: No space left on device"):
                    store.write_text(name, "something else")
            assert _listing(tmp_path) == before
            assert store.read_text("old.txt") == "old"
            assert not store.exists("new.txt")
        store.write_text("old.txt", "newer")
        assert store.read_text("old.txt") == "newer"
    with _open(tmp_path) as store:
        assert store.read_text("old.txt") == "newer"


def test_a_disk_that_fills_under_the_ledger_loses_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def full(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # the first is the file's own
            raise OSError(errno.ENOSPC, "No space left on device")

    with _open(tmp_path) as store:
        store.write_text("x", "old")
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(RunError, match=r"checksums\.jsonl: cannot be written"):
                store.write_text("x", "new")
        assert store.read_text("x") == "old"
    with _open(tmp_path) as store:
        assert store.read_text("x") == "old"


def test_events_are_kept_in_order_and_a_half_written_one_is_cut_off(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.event("round", number=1, loss=0.5)
        store.event("cell", attack="ridge")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": "2026')
    assert len(Store.load(tmp_path).events()) == 2
    with _open(tmp_path) as store:
        store.event("end")
        assert [event["kind"] for event in store.events()] == ["round", "cell", "end"]
        assert store.events()[0]["loss"] == 0.5
    assert all(json.loads(line)["time"].endswith("+00:00") for line in (tmp_path / "events.jsonl").open())


def test_an_unreadable_event_is_named_with_its_line(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.event("start")
        (tmp_path / "events.jsonl").open("a").write("?\n")
        with pytest.raises(InputError, match=r"events\.jsonl, line 2: unreadable"):
            store.events()


WORK = """
import sys
from pathlib import Path
from pplr_audit.runs.store import Store
with Store.open(Path(sys.argv[1]), "name: x\\n", "a" * 64) as store:
    for number in range(2):
        if not store.exists(f"step/{number}.txt"):
            store.write_text(f"step/{number}.txt", f"step {number}")
            store.event("step", number=number)
        store.write_text("latest.txt", f"step {number}")
    store.remove("step/0.txt")
    store.write_text("step/0.txt", "step 0")
"""


def _loaded(root: Path) -> Store:
    """The run as the kill left it; one that had just begun has no manifest yet and can only be started again."""
    try:
        return Store.load(root)
    except InputError as error:
        if not re.search("killed as it began|it has no", str(error)):
            raise
        return _open(root)


@pytest.mark.parametrize("times", range(1, 8))
@pytest.mark.parametrize("place", ["store.data_written", "store.renamed", "store.recorded"])
def test_killed_anywhere_a_run_is_whole_and_continues_to_the_same_end(tmp_path: Path, place: str, times: int) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    killed = subprocess.run(command, env={**os.environ, "PPLR_AUDIT_FAILPOINT": f"{place}#{times}"}, check=False)
    assert killed.returncode == -9
    with _loaded(tmp_path) as store:
        for path in store.paths():
            store.read_bytes(path)
        if store.exists("latest.txt"):
            assert store.read_text("latest.txt") in ("step 0", "step 1")
    assert subprocess.run(command, check=False).returncode == 0
    with Store.load(tmp_path) as store:
        assert [store.read_text(path) for path in store.paths("step")] == ["step 0", "step 1"]
        assert store.read_text("latest.txt") == "step 1"
    own = [".pplr-audit.lock", "checksums.jsonl", "events.jsonl", "latest.txt", "manifest.json", "scenario.yaml"]
    assert _listing(tmp_path) == [*own, "step", "step/0.txt", "step/1.txt"]


def test_killed_while_removing_the_file_counts_as_removed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORK, str(tmp_path)]
    killed = subprocess.run(command, env={**os.environ, "PPLR_AUDIT_FAILPOINT": "store.unlisted"}, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "step/0.txt").exists()
    with _open(tmp_path) as store:
        assert not store.exists("step/0.txt")
