"""The protocol of a data reader, ours and a third party's alike."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from pplr_audit.data.dataset import Dataset


@runtime_checkable
class Reader(Protocol):
    """Reads one format. Registered under the entry point group ``pplr_audit.readers``.

    Made with the settings of ``data.reader: {NAME: {SETTING: VALUE}}``, without arguments where there are none. A class
    with ``general = True`` is asked only where no other reader fits.
    """

    def detect(self, path: Path) -> bool:
        """True if ``path``, a folder or a file, looks like this format. Cheap: looks at names, not at content."""
        ...

    def read(self, path: Path) -> Dataset:
        """Everything in ``path``, unfiltered. Raises InputError: one line with the file, the line, what is accepted."""
        ...
