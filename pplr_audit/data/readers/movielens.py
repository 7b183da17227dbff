"""MovieLens as GroupLens ships it: 100K (u.data), 1M and 10M (ratings.dat), 20M, 25M, 32M and latest (ratings.csv)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.files.columns import ATTRIBUTE, Kind, Table, named
from pplr_audit.data.files.delimited import Dialect, read_delimited
from pplr_audit.data.readers.catalogue import catalogue
from pplr_audit.data.readers.interactions import attributes, dataset, histories
from pplr_audit.errors import InputError

# The 100K and 1M sets are ISO-8859-1, the others UTF-8; Latin text with an accent is practically never valid UTF-8.
ENCODINGS = ("utf-8", "iso-8859-1")
RATINGS = ("user_id", "item_id", "rating", "timestamp")
MOVIES = ("item_id", "title", "genres")
USERS = ("user_id", "gender", "age", "occupation", "zip")
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genres of u.item, one column of 0 and 1 each; in the order of u.genre."""
NO_GENRES = "(no genres listed)"
"""Text that movies.csv has where there is no genre."""


@dataclass(frozen=True)
class Form:
    """One of the three forms: its files and how they are written."""

    ratings: str
    movies: str
    users: str | None
    dialect: Mapping[str, Dialect]
    columns: tuple[str, str, str, str] = RATINGS
    """Columns of user, item, rating and time."""


def _plain(separator: str, header: tuple[str, ...]) -> Dialect:
    return Dialect(separator, quoted=False, header=header, encodings=ENCODINGS)


FORMS = (
    Form(
        "u.data",
        "u.item",
        "u.user",
        {
            "u.data": _plain("\t", RATINGS),
            "u.item": _plain("|", ("item_id", "title", "release", "video_release", "url", *GENRES)),
            "u.user": _plain("|", ("user_id", "age", "gender", "occupation", "zip")),
        },
    ),
    Form(
        "ratings.dat",
        "movies.dat",
        "users.dat",
        {
            "ratings.dat": _plain("::", RATINGS),
            "movies.dat": _plain("::", MOVIES),
            "users.dat": _plain("::", USERS),
        },
    ),
    Form(
        "ratings.csv",
        "movies.csv",
        None,
        {"ratings.csv": Dialect(), "movies.csv": Dialect()},
        ("userId", "movieId", "rating", "timestamp"),
    ),
)


class MovieLens:
    """Every rating is an interaction, whatever its value. Source: the README files of the data sets.

    Ratings of movies that have no title, or that the table of movies does not have, are left out and counted.
    """

    def detect(self, path: Path) -> bool:
        """True if there is a file of ratings under one of its three names, and next to ratings.csv a movies.csv."""
        form = _form(path)
        return form is not None and (form is not FORMS[2] or (_folder(path) / form.movies).is_file())

    def read(self, path: Path) -> Dataset:
        """Everything in the folder. Raises InputError as every reader does."""
        folder, form = _folder(path), _form(path)
        if form is None:
            names = ", ".join(form.ratings for form in FORMS)
            raise InputError(f"{folder}: no file of ratings (accepted: one of {names})")
        user, item, rating, time = form.columns
        kinds: dict[str, Kind] = {user: "id", item: "id", rating: "number", time: "time"}
        ratings = read_delimited(folder / form.ratings, form.dialect[form.ratings], kinds)
        movies = read_delimited(folder / form.movies, form.dialect[form.movies])
        for name in (item, "title", *(("genres",) if form.ratings != "u.data" else ())):
            named(movies.frame.columns, f"{folder / form.movies}, line 1", name)
        wares, index, notes = catalogue(movies, item, "title", _genres(movies))
        taken, left = histories(ratings, user, item, index, time=time, rating=rating, unknown="leave out")
        known: dict[str, tuple[str, ...]] = {}
        roles: dict[str | None, str] = {item: "item", "title": "title"}
        roles.update(dict.fromkeys(("genres", *GENRES), "categories"))
        events = ratings.read_as({user: "user", item: "item", rating: "rating", time: "time"})
        sources = [events, movies.read_as(roles)]
        if form.users is not None and (folder / form.users).exists():
            people = read_delimited(folder / form.users, form.dialect[form.users])
            sources.append(people.read_as({"user_id": "user"}, ATTRIBUTE))
            known = attributes(people, "user_id", taken.users)
        return dataset(folder.resolve().name, wares, taken, sources, attributes=known, notes=notes | left)


def _genres(movies: Table) -> list[str]:
    if "genres" in movies:
        return ["" if genres == NO_GENRES else genres for genres in movies.texts("genres")]
    flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES]
    return movies.frame.select(pl.concat_str(flags, separator="|", ignore_nulls=True)).to_series().to_list()


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _form(path: Path) -> Form | None:
    """The form of the file that ``path`` names; for a folder, the first that is in it."""
    if path.is_dir():
        return next((form for form in FORMS if (path / form.ratings).is_file()), None)
    return next((form for form in FORMS if path.name in (form.ratings, form.movies, form.users)), None)
