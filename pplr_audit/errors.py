"""The errors that a user can mend. Everything else is a bug and keeps its traceback."""


class InputError(Exception):
    """Wrong usage, scenario, data, model folder or run directory: exit code 2.

    The message is one line that names the file, the field or the line, and what is accepted.
    """


class RunError(Exception):
    """The run failed while running (a full disk, a loss that is not finite): exit code 1."""
