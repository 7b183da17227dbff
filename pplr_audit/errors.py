"""The errors that a user can mend, and the two ends of an attack. All else is a bug and keeps its traceback."""

import errno

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What an OSError says of a disk that is full, by itself, by a quota, or by a limit on the size of files."""


class InputError(Exception):
    """Wrong usage, scenario, data, model folder or run directory: exit code 2.

    The message is one line that names the file, the field or the line, and what is accepted.
    """


class RunError(Exception):
    """The run failed while running (a full disk, a loss that is not finite): exit code 1."""


class NotApplicable(Exception):
    """The view cannot carry what the attack is after; the reason is the message."""


class BudgetExhausted(Exception):
    """An attack ran out of what it may spend."""
