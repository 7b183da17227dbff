"""Records in a training's own folder: what crossed in a round that cannot be run again.

A server that learns as it goes is not stored, so its round is recorded once. The file is called after what was watched:
the taps and the rows, of which another question has others.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from pplr_audit.audit.replay.records import Watched
from pplr_audit.audit.replay.spool import Spool
from pplr_audit.audit.tap_points import Trace
from pplr_audit.runs.parsing import parsed, understood
from pplr_audit.runs.store import Store
from pplr_audit.threat_model.view import Record

_FIELDS = ("row", "client", "round", "step", "batch", "occurrence")


def name_of(
    watched: Mapping[str, Sequence[Watched]], round_: int, wanted: Collection[Trace], *, every: bool = False
) -> str:
    """Return the path of the recording of these samples at these taps, as they cross first or ``every`` time."""
    rows = [[client, each.row, each.sample, each.length] for client, own in sorted(watched.items()) for each in own]
    taps = sorted((trace.kind, trace.layer) for trace in wanted)
    sha = sha256(json.dumps([rows, taps, round_, every]).encode()).hexdigest()[:8]
    return f"recordings/round-{round_:03d}-{sha}.safetensors"


def write(store: Store, path: str, kept: Iterable[tuple[Trace, Record]]) -> None:
    """Put records away, in the order in which they came."""
    arrays, about = {}, []
    for place, (trace, record) in enumerate(kept):
        arrays[f"{place:06d}"] = record.tensor.detach().contiguous()
        about.append({"kind": trace.kind, "layer": trace.layer, **{name: getattr(record, name) for name in _FIELDS}})
    store.write_tensors(path, arrays, {"records": json.dumps({"records": about})})


def read(store: Store, path: str, scratch: Path) -> Spool:
    """Return the records that `write` wrote. Raises InputError that names the file where it was altered."""
    file = store.root / path
    spool, tensors = Spool(scratch), store.read_tensors(path)
    with understood(file):
        about = parsed(store.read_metadata(path)["records"].encode(), file)["records"]
        for place, each in enumerate(about):
            fields = {name: each[name] for name in _FIELDS}
            spool.put(Trace(each["kind"], int(each["layer"])), Record(**fields, tensor=tensors[f"{place:06d}"]))
    return spool
