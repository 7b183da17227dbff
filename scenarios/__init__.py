"""The scenarios that ship with the package, as data: their names, their one-line descriptions, their text."""

from importlib.resources import files

FILES = files(__name__)


def shipped() -> dict[str, str]:
    """Name to the first comment of the file that is not for an editor, in alphabetical order."""
    found = {}
    for entry in sorted(FILES.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            comments = (line[1:].strip() for line in entry.read_text("utf-8").splitlines() if line.startswith("#"))
            found[entry.name.removesuffix(".yaml")] = next((c for c in comments if "$schema=" not in c), "")
    return found


def text(name: str) -> str:
    """The YAML of a shipped scenario. Raises FileNotFoundError for a name that ``shipped`` does not list."""
    return (FILES / f"{name}.yaml").read_text("utf-8")
