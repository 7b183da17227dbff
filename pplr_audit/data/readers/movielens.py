"""MovieLens as GroupLens ships it (1M and 10M): ratings.dat, movies.dat and, where there, users.dat."""

from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.interactions import attributes, histories
from pplr_audit.data.readers.text import fingerprint, numbers, read_lines, read_table

RATINGS = ("user_id", "item_id", "rating", "timestamp")
MOVIES = ("item_id", "title", "genres")
USERS = ("user_id", "gender", "age", "occupation", "zip")
# The 1M set is ISO-8859-1, the 10M set UTF-8; Latin text with an accent in it is practically never valid UTF-8.
ENCODINGS = ("utf-8-sig", "iso-8859-1")


class MovieLens:
    """Columns separated by ``::``, no header. Source: the README files of the MovieLens 1M and 10M data sets."""

    def detect(self, path: Path) -> bool:
        """Whether there is a ratings.dat."""
        return (_folder(path) / "ratings.dat").is_file()

    def read(self, path: Path) -> Dataset:
        """Every rating is an interaction, whatever its value. Raises InputError as every reader does."""
        folder = _folder(path)
        sources = [read_lines(folder / "ratings.dat", ENCODINGS), read_lines(folder / "movies.dat", ENCODINGS)]
        ratings, movies = read_table(sources[0], "::", RATINGS), read_table(sources[1], "::", MOVIES)
        numbers(ratings, "rating")
        items, index = catalogue(movies, "item_id", "title", movies.columns["genres"])
        taken = histories(ratings, "user_id", "item_id", "timestamp", index)
        known: dict[str, tuple[str, ...]] = {}
        if (folder / "users.dat").exists():
            sources.append(read_lines(folder / "users.dat", ENCODINGS))
            known = attributes(read_table(sources[2], "::", USERS), "user_id", taken.users)
        return Dataset(
            name=folder.resolve().name,
            catalogue=items,
            users=taken.users,
            items=taken.items,
            given=None,
            attributes=known,
            digest=fingerprint(sources),
        )


def _folder(path: Path) -> Path:
    return path.parent if path.suffix == ".dat" and not path.is_dir() else path
