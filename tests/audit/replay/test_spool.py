"""What crossed comes back from the disk as it was, for one reader at a time, and a full disk is one message."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pplr_audit.audit.replay.spool import Spool
from pplr_audit.errors import RunError
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.view import Record


def record(row: int, value: float, *shape: int, dtype: torch.dtype = torch.float32) -> Record:
    beside = {Channel.TRUNK_ACTIVATIONS: torch.ones(1)}
    return Record(row, "client-0", 1, row, torch.full(shape, value, dtype=dtype), 3, beside)


def test_records_come_back_under_their_key_in_their_order_with_all_that_they_say(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put("a", record(4, 1.5, 2, 3))
    spool.put("b", record(1, 2.5, 7, dtype=torch.float64))
    spool.put("a", record(2, 3.5, 1, 3))
    first, second = spool.records("a")
    assert (first.row, second.row, first.step, first.batch) == (4, 2, 4, 3)
    assert torch.equal(first.tensor, torch.full((2, 3), 1.5))
    assert torch.equal(second.tensor, torch.full((1, 3), 3.5))
    assert first.also_reads[Channel.TRUNK_ACTIVATIONS].tolist() == [1.0]
    (other,) = spool.records("b")
    assert other.tensor.dtype == torch.float64
    assert other.tensor.tolist() == [2.5] * 7
    assert spool.records("c") == []
    assert [each.row for each in spool.stream("a", [2, 4])] == [2, 4]
    assert list(tmp_path.iterdir()) == [], "its file has no name"


def test_a_reader_that_changes_a_tensor_changes_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put("a", record(0, 1.0, 2))
    spool.records("a")[0].tensor.zero_()
    assert spool.records("a")[0].tensor.tolist() == [1.0, 1.0]


def test_a_disk_that_takes_a_part_at_a_time_loses_nothing_and_a_full_one_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, file = Spool(tmp_path), None
    file = spool._file

    def slow(data: Any) -> int:
        return file.write(data[:5])

    monkeypatch.setattr(spool, "_file", SimpleNamespace(write=slow, fileno=file.fileno))
    spool.put("a", record(0, 1.0, 4))
    spool.put("a", record(1, 2.0, 4))
    assert [each.tensor.tolist() for each in spool.records("a")] == [[1.0] * 4, [2.0] * 4]

    def full(data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool, "_file", SimpleNamespace(write=full, fileno=file.fileno))
    with pytest.raises(RunError, match="what crossed cannot be kept: No space left on device; what was there is whole"):
        spool.put("a", record(2, 1.0, 4))
