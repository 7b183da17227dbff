"""Files as streams: packed or not, in any encoding, bounded, and with errors that name the line."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import zipfile

import pytest

from pplr_audit.data.files import delimited, streams
from pplr_audit.data.files.delimited import Dialect, read_delimited
from pplr_audit.data.files.json_lines import read_json_lines
from pplr_audit.data.files.streams import Stream, unpacked
from pplr_audit.data.load import read
from pplr_audit.errors import InputError
from tests.data.conftest import MOVIELENS
from tests.data.forms import FORMS, TOY

ANY = Dialect(encodings=streams.ENCODINGS)


@pytest.fixture
def file(tmp_path):
    def made(content, name="a.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


def text(path, dialect=ANY):
    return read_delimited(path, dialect).frame.rows()


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 24])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_do_not_depend_on_how_the_file_is_read(monkeypatch, file, piece, end):
    monkeypatch.setattr(streams, "PIECE", piece)
    content = 'a,b\n1,"x\ny, ""z"""\n2,é\n,\n'.replace("\n", end)
    assert text(file(content)) == [("1", f'x{chr(10)}y, "z"'), ("2", "é"), ("", "")]
    assert text(file(content.removesuffix(end))) == text(file(content))


@pytest.mark.parametrize("piece", [1, 5, 1 << 24])
def test_a_line_is_named_although_fields_hold_line_ends(monkeypatch, file, piece):
    monkeypatch.setattr(streams, "PIECE", piece)
    path = file('id,b\n1,"x\ny"\n2,\n3,"\n\n"\n3,z\n')
    table = read_delimited(path, ANY)
    assert [table.at(row).rpartition(" ")[2] for row in range(4)] == ["2", "4", "5", "8"]
    with pytest.raises(InputError, match=r"line 5: id is 'x' \(accepted: a finite number\)"):
        read_delimited(file('id,b\n1,"x\ny"\n2,\nx,"\n\n"\n3,z\n'), ANY, {"id": "number"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 columns (accepted: 2 columns separated by commas: a, b)"),
        ("a,b\n1,2\n1\n2,3\n", "line 3: 1 column (accepted"),
        ("a,b\n1,2,3\n1\n", "line 2: 3 columns"),
        ("a,b\n1,2\n\n2,3\n", "line 3: an empty line"),
        ("a,b\n1,2\n2", "line 3: 1 column: the file ends in the middle of a line"),
        ('a,b\n"1",2\n"1"\n', "line 3: 1 column"),
        ('a,b\n"x\ny",2\n"1",2,3\n', "line 4: 3 columns"),
        ('a,b\n1,2\n"1,2\n', "line 3: "),
        ("a,a\n1,2\n", "line 1: the column 'a' is there twice"),
        ("a,b\n", "no rows"),
        ("\n\n", "the file is empty"),
        ("", "the file is empty"),
    ],
)
def test_a_broken_row_is_named_by_its_line(file, content, said):
    with pytest.raises(InputError) as caught:
        read_delimited(file(content), ANY)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_far_into_a_large_file_is_named(monkeypatch, file):
    monkeypatch.setattr(streams, "PIECE", 1000)
    rows = [f"{n},{n % 7}" for n in range(5000)]
    rows[4321] = "4321"
    with pytest.raises(InputError, match="line 4323: 1 column"):
        read_delimited(file("\n".join(["a,b", *rows])), ANY)


@pytest.mark.parametrize(
    ("encoding", "found"),
    [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("cp1252", "cp1252")],
)
def test_the_encoding_that_worked_is_said(file, encoding, found):
    table = read_delimited(file("title,b\nMisérables €,2\n".encode(encoding)), ANY)
    assert table.texts("title") == ["Misérables €"]
    assert table.source.encoding == found


def test_text_in_no_encoding_is_refused_by_line_and_byte(file):
    with pytest.raises(
        InputError, match=r"a\.csv, line 3: byte 0x81 is not text \(accepted: UTF-8 or UTF-16 or CP1252\)"
    ):
        read_delimited(file(b"a\n1\n\x81\n"), ANY)


@pytest.mark.parametrize("encodings", [streams.ENCODINGS, ("utf-8", "iso-8859-1")])
@pytest.mark.parametrize("piece", [40, 1 << 24])
def test_a_stray_byte_does_not_change_the_encoding_of_the_whole_file(monkeypatch, file, piece, encodings):
    monkeypatch.setattr(streams, "PIECE", piece)
    rows = "".join(f"{n},Crème brûlée {n}\n" for n in range(9)).encode()
    path = file(b"a,b\n" + rows + b"9,Cr\xe8me\n" + rows)
    with pytest.raises(InputError, match=r"line 11: byte 0xe8 is not UTF-8, though most of the file is"):
        read_delimited(path, Dialect(encodings=encodings))


@pytest.mark.parametrize("title", ["Crème", "Ångström — “x”", "naïve Ã©"])
def test_text_of_one_byte_a_letter_is_still_told_from_utf8(file, title):
    rows = "".join(f"{n},{title}\n" for n in range(9)).encode("cp1252")
    table = read_delimited(file(b"a,b\n" + rows), ANY)
    assert (table.source.encoding, table.texts("b")[0]) == ("cp1252", title)


def test_the_fingerprint_is_of_name_length_and_content_and_not_of_the_packing(file):
    stream = Stream(file("a,b\n1,2\n"), "utf-8")
    assert b"".join(block.data for block in stream) == b"a,b\n1,2\n"
    inner = hashlib.sha256(b"a,b\n1,2\n").digest()
    assert stream.source.digest == hashlib.sha256(b"a.csv\x008\x00" + inner).digest()


def test_gzip_is_told_by_its_bytes_and_not_by_its_name(file):
    assert text(file(gzip.compress(b"a\n1\n"), "plain.csv")) == [("1",)]


def test_a_gzip_cut_short_is_refused(file):
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 10_000)
    with pytest.raises(InputError, match=r"a\.csv: the gzip file is cut short \(after \d+ unpacked bytes\)"):
        read_delimited(file(packed[:-20]), ANY)


def test_a_damaged_gzip_is_refused(file):
    packed = bytearray(gzip.compress(bytes(range(256)) * 100))
    packed[40:60] = bytes(20)
    with pytest.raises(InputError, match=r"a\.csv: the gzip file is damaged"):
        list(unpacked(file(bytes(packed))))


def test_a_gzip_that_unpacks_beyond_measure_is_refused(monkeypatch, file):
    monkeypatch.setattr(streams, "FREE", 1 << 20)
    path = file(gzip.compress(b"0" * (1 << 23)))
    with pytest.raises(InputError, match="unpacks to more than 250 times its size"):
        read_delimited(path, ANY)
    monkeypatch.setattr(streams, "EXPANSION", 1100)
    assert sum(map(len, unpacked(path))) == 1 << 23


def test_a_record_without_end_is_refused_before_it_fills_the_memory(monkeypatch, file):
    monkeypatch.setattr(streams, "LONGEST_RECORD", 1000)
    monkeypatch.setattr(streams, "PIECE", 500)
    with pytest.raises(InputError, match="line 2: a record of more than"):
        read_delimited(file('a,b\n"' + "x,2\n" * 2000), ANY)


def test_a_folder_in_the_place_of_a_file_is_refused_and_not_left_open(tmp_path):
    opened = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(InputError, match=r"a folder \(accepted: a file\)"):
            next(unpacked(tmp_path))
    assert len(os.listdir("/dev/fd")) == opened


@pytest.mark.parametrize("name", ["users.dat", "loans.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_refused_without_waiting_for_it(file, tmp_path, name):
    for each, content in MOVIELENS.items():
        file(content, each)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    script = f"from pplr_audit.data.load import read; read({str(tmp_path / name)!r}, 'auto')"
    # Another process, because a pipe that is opened waits for ever.
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "InputError" in ended.stderr
    assert f"{tmp_path / name}: no regular file" in ended.stderr


def zipped(files, folder=""):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}{name}", content)
    return packed.getvalue()


@pytest.mark.parametrize("folder", ["", "ml-32m/"])
def test_a_zip_is_read_like_the_folder_in_it(file, folder):
    dataset = read(str(file(zipped(FORMS["ml_32m"](TOY), folder), "ml-32m.zip")), "auto")
    assert dataset.users == ("5", "7", "9")
    assert dataset.name == "ml-32m"


def test_errors_about_a_file_in_a_zip_name_the_zip(file):
    files = {**FORMS["ml_32m"](TOY), "movies.csv": b"movieId,title\n"}
    path = file(zipped(files), "ml.zip")
    with pytest.raises(InputError) as caught:
        read(str(path), "auto")
    assert str(caught.value).startswith(f"{path}/movies.csv: no rows")


def test_a_zip_bomb_a_broken_zip_and_paths_that_lead_out_do_no_harm(monkeypatch, file, tmp_path):
    monkeypatch.setattr("pplr_audit.data.files.archive.FREE", 1 << 20)
    with pytest.raises(InputError, match=r"bomb\.zip: unpacks to more than 250 times its size"):
        read(str(file(zipped({"ratings.csv": bytes(1 << 23)}), "bomb.zip")), "auto")
    with pytest.raises(InputError, match=r"half\.zip: the zip file is damaged"):
        read(str(file(zipped(FORMS["ml_32m"](TOY))[:-30], "half.zip")), "auto")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="no reader knows"):
        read(str(file(zipped({"../../escaped.txt": b"x", "notes.md": b"y"}), "out.zip")), "auto")
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "out.zip"])
    assert not (tmp_path.parent / "escaped.txt").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": 1}\nx\n', r"line 2: 'x' is no JSON object \(accepted: one object a line\)"),
        ('{"a": 1}\n\n[1]\n', r"line 3: '\[1\]' is no JSON object"),
        ('{"a": 1}\n{"a": ', r"line 2: .* the file may be cut short"),
        ('{"a": "x"}\n', r"line 1: a is 'x' \(accepted: a finite number\)"),
        ('{"a": 1}\n\n{"b": 1}\n', r"line 3: a is empty \(accepted: a finite number\)"),
        ('{"b": 1}\n', r"line 1: no column 'a'"),
        ('{"a": __import__("os")}\n', r"line 1: .* is no JSON object"),
        ('{"a": ' + "[" * 3000 + "]" * 3000 + "}\n", r"line 1: .* is no JSON object|a is '\[\["),
    ],
)
def test_broken_json_lines_are_refused_by_line(file, content, said):
    with pytest.raises(InputError, match=said):
        read_json_lines(file(content, "a.jsonl"), {"a": "number"})


def test_json_lines_and_python_literals_may_stand_in_one_file(file):
    table = read_json_lines(
        file('{"a": "x", "n": 1}\n\n{u\'a\': u"it\'s", u\'n\': 12345678901234567890123}\n', "a.jsonl"),
        {"a": "text", "n": "id"},
    )
    assert table.texts("a") == ["x", "it's"]
    assert table.ids["n"].names == ("1", "12345678901234567890123")
    assert table.at(1).endswith("line 3")


def test_the_header_alone_can_be_asked_for(file):
    assert delimited.columns_of(file('"a b",c\n1,2\n'), ANY) == ["a b", "c"]
