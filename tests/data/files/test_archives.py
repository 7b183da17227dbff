"""Zips: what is unpacked, how much of it, and that nothing of it stays."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from pplr_audit.data.files import archive
from pplr_audit.data.files.scratch import scratch, sweep
from pplr_audit.data.load import read
from pplr_audit.errors import InputError
from tests.data.forms import FORMS, TOY

ROOT = Path(__file__).parents[3]


def zipped(members):
    """A zip with these names as they stand: zipfile itself would mend some."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members:
            info = zipfile.ZipInfo("x")
            info.filename = name
            made.writestr(info, content)
    return file.getvalue()


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of temporary files that nobody else uses."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


def test_backslashes_between_folders_are_slashes(write, own):
    members = [("ml\\", b""), *((f"ml\\{name}", content) for name, content in FORMS["ml_32m"](TOY).items())]
    path = write({"ml.zip": zipped(members)}) / "ml.zip"
    found = read(str(path), "auto")
    assert found.reader == "movielens"
    assert found.users == ("5", "7", "9")
    assert [file.path for file in found.sources] == [path / "ml" / "ratings.csv", path / "ml" / "movies.csv"]
    assert list(own.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "..\\..\\out.csv",
        "../../out.csv",
        "a\\..\\..\\..\\out.csv",
        "/out.csv",
        "\\out.csv",
        "C:\\out.csv",
        "c:out.csv",
        "..",
    ],
)
def test_a_member_that_leads_out_is_passed_over(write, own, tmp_path, name):
    members = [(name, b"x"), *FORMS["ml_32m"](TOY).items()]
    path = write({"ml.zip": zipped(members)}) / "ml.zip"
    assert read(str(path), "auto").users == ("5", "7", "9")
    assert not list(tmp_path.rglob("*out*"))
    assert not Path("/out.csv").exists()


@pytest.mark.parametrize("again", ["ml\\ratings.csv", "ml//ratings.csv", "ml/./ratings.csv"])
def test_two_members_of_one_name_are_refused(write, own, again):
    path = write({"x.zip": zipped([("ml/ratings.csv", b"a"), (again, b"b")])}) / "x.zip"
    with pytest.raises(InputError, match=r"x\.zip: holds ml/ratings\.csv twice \(accepted: each file once\)"):
        read(str(path), "auto")


def test_members_are_counted(monkeypatch, write, own):
    monkeypatch.setattr(archive, "MEMBERS", 20)
    rest = [(f"{at}.txt", b"") for at in range(20)]
    for count in (17, 18):
        path = write({"ml.zip": zipped([*FORMS["ml_32m"](TOY).items(), *rest[:count]])}) / "ml.zip"
        if count == 17:
            assert read(str(path), "auto").users == ("5", "7", "9")
            continue
        with pytest.raises(InputError, match=r"ml\.zip: holds too many files \(accepted: up to 20\)"):
            read(str(path), "auto")
    assert list(own.iterdir()) == []


def test_a_list_of_members_beyond_measure_is_not_even_read(monkeypatch, write, own):
    path = write({"x.zip": zipped([(f"{at}" * 40, b"") for at in range(1000, 1200)])}) / "x.zip"
    monkeypatch.setattr(archive, "DIRECTORY", 10_000)
    monkeypatch.setattr(zipfile.ZipFile, "infolist", None)
    with pytest.raises(InputError, match=r"x\.zip: holds too many files"):
        read(str(path), "auto")


def test_a_zip_in_a_zip_stays_one(write, own):
    inner = zipped(FORMS["ml_32m"](TOY).items())
    path = write({"x.zip": zipped([("ml/ml.zip", inner), ("ml/readme.txt", b"x")])}) / "x.zip"
    with pytest.raises(InputError, match=r"no reader knows .*which holds ml\.zip, readme\.txt"):
        read(str(path), "auto")


HOLD = """
import signal, sys, time
from pathlib import Path
# A process started by nohup or in the background would ignore them, and rightly so.
for each, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    signal.signal(each, usual)
from pplr_audit.data.files.archive import unzipped
with unzipped(Path(sys.argv[1])) as place:
    print(sorted(each.name for each in place.iterdir()), flush=True)
    {what}
"""


def holding(path, what="time.sleep(60)"):
    """A process that has unpacked ``path`` and does ``what`` with it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD.format(what=what), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
    assert "ratings.csv" in process.stdout.readline()
    return process


@pytest.fixture
def ml(write):
    return write({"ml.zip": zipped(FORMS["ml_32m"](TOY).items())}) / "ml.zip"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_was_unpacked_goes_when_a_signal_ends_the_process(ml, own, number):
    process = holding(ml)
    assert len(list(own.iterdir())) == 1
    process.send_signal(number)
    # As shells tell it; an interrupt that nobody catches ends Python by the signal itself.
    assert process.wait(20) == (128 + number if number != signal.SIGINT else -number)
    assert list(own.iterdir()) == []


@pytest.mark.parametrize(("what", "code"), [("pass", 0), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_what_was_unpacked_goes_at_any_end(ml, own, what, code):
    assert holding(ml, what).wait(20) == code
    assert list(own.iterdir()) == []


def test_what_a_killed_process_left_goes_at_the_next_start(ml, own):
    process = holding(ml)
    process.kill()
    process.wait(20)
    (left,) = own.iterdir()
    assert (left / "ml" / "ratings.csv").exists()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pplr_audit", "--version"], check=True, env=environment, capture_output=True)
    assert list(own.iterdir()) == []


def test_only_own_folders_of_dead_processes_are_swept(ml, own, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(20)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    living = holding(ml)
    link, file = own / f"pplr-audit-{dead.pid}-link", own / f"pplr-audit-{dead.pid}-file"
    link.symlink_to(kept)
    file.write_text("x")
    names = [f"pplr-audit-{os.getpid()}-mine", f"pplr-audit-{dead.pid}", "pplr-audit-x-y", f"other-{dead.pid}-x"]
    for name in names:
        (own / name).mkdir()
    gone = own / f"pplr-audit-{dead.pid}-abc"
    gone.mkdir()
    (gone / "away").symlink_to(kept)
    before = set(own.iterdir())
    sweep()
    assert set(own.iterdir()) == before - {gone}
    assert (kept / "file").read_text() == "x"
    living.kill()
    living.wait(20)


def test_a_folder_that_is_held_by_a_process_out_of_sight_is_not_swept(own, monkeypatch):
    with scratch() as place:
        monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(ProcessLookupError))
        sweep()
        assert place.exists()
    assert not place.exists()


def test_a_folder_of_another_user_is_not_swept(own, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(20)
    left = own / f"pplr-audit-{dead.pid}-abc"
    left.mkdir()
    with monkeypatch.context() as other:
        other.setattr(os, "getuid", lambda: 12345)
        sweep()
    assert left.exists()
    sweep()
    assert not left.exists()


def test_handlers_are_left_as_they_were_and_an_ignored_signal_stays_ignored(own):
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with scratch() as place:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert place.stat().st_mode & 0o777 == 0o700
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[1])
    assert signal.getsignal(signal.SIGTERM) == before[0]


def test_a_thread_may_read_a_zip(ml, own):
    found = []
    thread = threading.Thread(target=lambda: found.append(read(str(ml), "auto").users))
    thread.start()
    thread.join()
    assert found == [("5", "7", "9")]
    assert list(own.iterdir()) == []
