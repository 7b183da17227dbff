"""A test instrument: places where a run can be killed on purpose, to prove that it continues from there.

Set ``PPLR_AUDIT_FAILPOINT=store.renamed`` to kill the process with SIGKILL the first time it reaches that place, or
``store.renamed#3`` the third time. Unset (always, outside tests), reaching a place costs one look at a constant.
"""

import os
import signal

_name, _left = "", 1


def choose(failpoint: str) -> None:
    """Choose the place of this process: ``PLACE`` or ``PLACE#TIMES``; nothing for none."""
    global _name, _left
    _name, _, times = failpoint.partition("#")
    _left = int(times) if times.isdecimal() else 1


def reach(name: str) -> None:
    """Kill this process, as a power cut would, if ``name`` is the chosen place and it is the n-th time here."""
    if not _name or name != _name:
        return
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


choose(os.environ.get("PPLR_AUDIT_FAILPOINT", ""))
