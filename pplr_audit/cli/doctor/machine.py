"""The machine: cores, memory, accelerator, bfloat16, and the disks that a run writes to."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pplr_audit.cli.doctor.check import Check, Trial
from pplr_audit.report.words.quantities import size
from pplr_audit.scenario.paths import cache_root
from pplr_audit.training.threads import ASLEEP, CHOSEN, asked_by_environment, watched

MEMORY, FREE = 2e9, 1e9
"""Bytes below which the quickstart may not fit into memory, or its run onto the disk."""


def processors(trial: Trial) -> Iterator[Check]:
    """Cores, memory, GPU and bfloat16."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    yield Check("hardware", "cores", "ok", f"{usable} of {cores}" if usable != cores else str(cores))
    yield _threads()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    advice = "the quickstart takes 2 GB; close other programs, or use a smaller scenario" if total < MEMORY else ""
    yield Check("hardware", "memory", "warning" if total < MEMORY else "ok", size(total), advice)
    found = trial.accelerator
    if "error" in found:
        yield Check("hardware", "GPU", "warning", found["error"], "see torch above")
    else:
        names = ", ".join(found.get("names", []))
        yield Check(
            "hardware", "GPU", "ok", f"{names} (this version computes on the CPU)" if names else "none, and none needed"
        )
    yield Check("hardware", "bfloat16", "ok", _bfloat16(found.get("bfloat16")))


def _threads() -> Check:
    """Check the threads that a training that begins now would take at most, and how they wait for each other."""
    cores, asked = watched(), asked_by_environment()
    number = asked or cores.free
    found = f"up to {number} for a training that begins now"
    if asked is not None:
        found += f" ({CHOSEN})"
    elif cores.free < cores.usable:
        found += f": other programs keep {cores.taken:.1f} cores busy"
    spins = [name for name, value in ASLEEP.items() if os.environ.get(name, value).upper() != value]
    spins += [name for name in ("GOMP_SPINCOUNT",) if os.environ.get(name, "0") != "0"]
    if spins:
        advice = f"unset {' and '.join(spins)}: threads that spin while they wait are slow beside other programs"
        return Check("hardware", "threads", "warning", f"{found}; they spin while they wait", advice)
    if number > 1 and cores.taken + number > cores.usable + 0.5:
        advice = "--threads 1, or wait until the other programs are done"
        return Check("hardware", "threads", "warning", f"{found}, more than are free", advice)
    busy = asked is None and cores.free < cores.usable
    advice = "a run that begins when they are done takes more, and keeps them" if busy else ""
    return Check("hardware", "threads", "warning" if busy else "ok", found, advice)


def disk() -> Iterator[Check]:
    """Room where runs are written by default and where models are kept, and whether that can be written."""
    yield _folder("here", Path.cwd(), "go to a folder that can be written, or use --out DIR")
    cache = "set PPLR_AUDIT_CACHE to a folder that can be written; without one tiny-llama is trained for each run"
    try:
        yield _folder("cache", cache_root(), cache)
    except ImportError as error:  # of the library that knows where caches lie
        yield Check("disk", "cache", "warning", f"not known: {error}", "see platformdirs above")


def _folder(name: str, folder: Path, advice: str) -> Check:
    """Free space and a file really written, in ``folder`` or what is there above it."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        free = shutil.disk_usage(there).free
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return Check("disk", name, "warning", f"{folder}: cannot be written: {error.strerror}", advice)
    found = f"{folder}: {size(free)} free"
    if free < FREE:
        return Check("disk", name, "warning", found, "the run of a large model may not fit; free some space")
    return Check("disk", name, "ok", found)


def _bfloat16(gpu: bool | None) -> str:
    """Judge bfloat16 by the processor's flags; without its own instructions it is computed by way of float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        flags = []
    own = sorted({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    cpu = f"CPU: {', '.join(own)}" if own else "CPU: no instructions of its own"
    return cpu if gpu is None else f"GPU: {'yes' if gpu else 'no'}; {cpu}"
