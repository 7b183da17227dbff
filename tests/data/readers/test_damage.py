"""Whatever happens to a file, a reader reads it or refuses it in one line; it never breaks down."""

import gzip
import random

import pytest

from pplr_audit.data.load import read
from pplr_audit.data.split import split
from pplr_audit.errors import InputError
from tests.data.forms import FORMS, TOY

READERS = {"recbole": "recbole", "movielens": "movielens", **dict.fromkeys(("plain", "parts", "whole"), "sequences")}
PIECES = [
    b"\t",
    b"\n",
    b"::",
    b":",
    b" ",
    b"\r",
    b"\r\n",
    b"\x00",
    b"\xff",
    b"1",
    b"-1",
    b"nan",
    b"1e999",
    "é".encode(),
    b'"',
    b",",
    b"{",
    b"]",
    b"null",
    b"9" * 30,
]


def damaged(content, rng):
    for _ in range(rng.randint(1, 3)):
        start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        end = min(end, start + rng.randint(0, 6))
        content = content[:start] + b"".join(rng.choices(PIECES, k=rng.randint(0, 2))) + content[end:]
    return content if rng.random() < 0.9 else content[: rng.randrange(len(content) + 1)]


@pytest.mark.parametrize("form", [*READERS, *FORMS])
def test_a_damaged_file_is_read_or_refused(write, request, form):
    files = FORMS[form](TOY) if form in FORMS else request.getfixturevalue(form)
    reader = "auto" if form in FORMS else READERS[form]
    rng = random.Random(form)
    refused = 0
    for _ in range(60):
        name = rng.choice(sorted(files))
        content = files[name] if isinstance(files[name], bytes) else files[name].encode()
        packed = content.startswith(b"\x1f\x8b") and rng.random() < 0.7
        broken = gzip.compress(damaged(gzip.decompress(content), rng)) if packed else damaged(content, rng)
        try:
            dataset = read(str(write({**files, name: broken})), reader)
        except InputError as error:
            refused += 1
            message = str(error)
            assert len(message.splitlines()) == 1
            # A damaged table of items may show in the interactions: some file of the folder is named, or the path.
            assert any(file in message for file in files) or str(write({})) in message
        else:
            assert dataset.items.offsets[-1] == len(dataset.items.values)
            assert dataset.items.values.max() < len(dataset.catalogue)
            assert len(dataset.items) == len(dataset.users)
            assert all(len(values) == len(dataset.users) for values in dataset.attributes.values())
            split(dataset, "leave_one_out")
    assert refused > 10
