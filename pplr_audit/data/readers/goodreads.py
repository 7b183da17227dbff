"""Goodreads (UCSD Book Graph): goodreads_interactions_GENRE.json and goodreads_books_GENRE.json, also as .gz."""

from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.readers.reviews import Names, files, read_published, stem
from pplr_audit.errors import InputError

EVENTS = ("goodreads_interactions", "goodreads_reviews")
ACCEPTED = "goodreads_interactions_GENRE.json or goodreads_reviews_GENRE.json with goodreads_books_GENRE.json"
NAMES = Names(
    user=("user_id",),
    item=("book_id",),
    time=("date_added",),
    rating=("rating",),
    ware=("book_id",),
    title=("title", "title_without_series"),
    from_web=True,
)


class Goodreads:
    """JSON lines. Source: M. Wan and J. McAuley, RecSys 2018 and ACL 2019, and their page of the data set."""

    def detect(self, path: Path) -> bool:
        """True if there is a file of interactions or reviews."""
        if path.is_dir():
            return any(name.startswith(EVENTS) for name in files(path))
        return (stem(path) or "").startswith((*EVENTS, "goodreads_books"))

    def read(self, path: Path) -> Dataset:
        """Every book on a user's shelves, read or not. Raises InputError as every reader does."""
        folder = path if path.is_dir() else path.parent
        known = files(folder)
        wanted = [name for name in known if name.startswith(EVENTS)]
        if not path.is_dir() and stem(path) in wanted:
            wanted = [name for name in wanted if known[name].name == path.name]
        pairs = [(known[name], known[books]) for name in wanted if (books := _books(name)) in known]
        if not pairs:
            raise InputError(f"{path}: no interactions beside the books of the same genre (accepted: {ACCEPTED})")
        if len(pairs) > 1:
            names = ", ".join(events.name for events, _ in pairs)
            raise InputError(f"{path}: several files of interactions: {names} (accepted: the path of one of them)")
        return read_published(folder.resolve().name, *pairs[0], NAMES)


def _books(name: str) -> str:
    genre = next(name.removeprefix(start) for start in EVENTS if name.startswith(start))
    return f"goodreads_books{genre.replace('_dedup', '').replace('_spoiler', '')}"
