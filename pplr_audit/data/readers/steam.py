"""Steam reviews as W.-C. Kang and J. McAuley publish them: steam_reviews.json and steam_games.json, also as .gz."""

from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.readers.reviews import Names, files, read_published, stem
from pplr_audit.errors import InputError

NAMES = Names(
    user=("username", "user_id"),
    item=("product_id",),
    time=("date",),
    ware=("id",),
    title=("app_name", "title"),
    categories=("genres", "tags"),
    from_web=True,
    html=True,
)


class Steam:
    """Python literals in place of JSON. Source: the authors' page of data sets (SASRec, ICDM 2018)."""

    def detect(self, path: Path) -> bool:
        """True if there is a steam_reviews."""
        return "steam_reviews" in files(path) if path.is_dir() else stem(path) in ("steam_reviews", "steam_games")

    def read(self, path: Path) -> Dataset:
        """Every review is an interaction; reviews of one day keep the order of the file."""
        folder = path if path.is_dir() else path.parent
        known = files(folder)
        for name in ("steam_reviews", "steam_games"):
            if name not in known:
                raise InputError(f"{folder}: no {name}.json (accepted: steam_reviews.json and steam_games.json)")
        return read_published(folder.resolve().name, known["steam_reviews"], known["steam_games"], NAMES)
