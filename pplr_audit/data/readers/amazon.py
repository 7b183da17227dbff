"""Amazon Reviews 2014, 2018 and 2023: reviews as JSON lines, gzipped or not, beside their meta file."""

from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.readers.reviews import Names, files, read_published, stem
from pplr_audit.errors import InputError

NAMES = Names(
    user=("user_id", "reviewerID"),
    # 2023: variants of one product share their parent's page, and its title.
    item=("parent_asin", "asin"),
    time=("timestamp", "unixReviewTime"),
    rating=("rating", "overall"),
    ware=("parent_asin", "asin"),
    title=("title",),
    categories=("categories", "category", "main_category"),
    from_web=True,
    html=True,
)
ACCEPTED = "NAME.jsonl with meta_NAME.jsonl, NAME_5.json or reviews_NAME_5.json with meta_NAME.json, each also as .gz"


class Amazon:
    """Source: J. McAuley (2014, Python literals in place of JSON), J. Ni (2018), Y. Hou (2023), as their pages say."""

    def detect(self, path: Path) -> bool:
        """True if a folder holds reviews with their meta_NAME, or a file is one of the two."""
        return bool(_pairs(path))

    def read(self, path: Path) -> Dataset:
        """Every review. Raises InputError as every reader does, and if a folder holds more than one set."""
        events, wares = _pair(path)
        return read_published(events.parent.resolve().name, events, wares, NAMES)


def _pair(path: Path) -> tuple[Path, Path]:
    pairs = _pairs(path)
    if len(pairs) == 1:
        return pairs[0]
    if not pairs:
        raise InputError(f"{path}: no reviews beside a meta file of the same name (accepted: {ACCEPTED})")
    names = ", ".join(events.name for events, _ in pairs)
    raise InputError(f"{path}: several files of reviews: {names} (accepted: the path of one of them)")


def _pairs(path: Path) -> list[tuple[Path, Path]]:
    """Reviews and their meta file; of a path to a file those that it belongs to."""
    if not path.is_dir() and stem(path) is None:
        return []
    known = files(path if path.is_dir() else path.parent)
    pairs = [(file, known[meta]) for name, file in known.items() if (meta := f"meta_{_set(name)}") in known]
    return pairs if path.is_dir() else [pair for pair in pairs if path.name in (pair[0].name, pair[1].name)]


def _set(name: str) -> str:
    """The set that a file of reviews belongs to, as its meta file names it."""
    return name.removeprefix("reviews_").removesuffix("_5")
