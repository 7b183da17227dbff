"""One small market written in every form that a reader knows, as its publisher would write it."""

import csv
import gzip
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pplr_audit.data.readers.movielens import GENRES


@dataclass(frozen=True)
class Market:
    """Titles by item id, and of each user the items in time order: the n-th row of all is at time ``START + n``."""

    titles: Mapping[str, str]
    taken: Mapping[str, Sequence[str]]

    @property
    def rows(self) -> list[tuple[str, str, int, int]]:
        """user, item, rating, seconds; users take turns, so that nobody's rows stand together."""
        turns = [(at, user, item) for user, items in self.taken.items() for at, item in enumerate(items)]
        return [(u, i, 1 + n % 5, START + n) for n, (_, u, i) in enumerate(sorted(turns, key=lambda turn: turn[0]))]


START = 1_500_000_000
TOY = Market(
    {"11": "Toy Story (1995)", "22": 'Zelda: "Link\'s" Awakening, the game', "33": "Misérables & <b>Co</b>"},
    {"7": ["11", "22", "33", "11"], "5": ["33", "11"], "9": ["22"]},
)
Files = dict[str, bytes]


def ml_100k(market: Market) -> Files:
    flags = "|".join("1" if name in ("Comedy", "Drama") else "0" for name in GENRES)
    return {
        "u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in reversed(market.rows)).encode(),
        "u.item": "".join(f"{i}|{t}|01-Jan-1995||http://x|{flags}\n" for i, t in market.titles.items()).encode(
            "latin-1"
        ),
        "u.user": "".join(f"{u}|{20 + n}|F|student|94043\n" for n, u in enumerate(market.taken)).encode(),
    }


def ml_10m(market: Market) -> Files:
    return {
        "ratings.dat": "".join(f"{u}::{i}::{r}.5::{t}\n" for u, i, r, t in market.rows).encode(),
        "movies.dat": "".join(f"{i}::{t}::Comedy|Drama\n" for i, t in market.titles.items()).encode(),
    }


def ml_32m(market: Market) -> Files:
    return {
        "ratings.csv": _csv(["userId", "movieId", "rating", "timestamp"], market.rows),
        "movies.csv": _csv(["movieId", "title", "genres"], [(i, t, "Comedy|Drama") for i, t in market.titles.items()]),
        "tags.csv": b"userId,movieId,tag,timestamp\n",
    }


def amazon_2014(market: Market) -> Files:
    reviews = [{"reviewerID": u, "asin": i, "overall": float(r), "unixReviewTime": t} for u, i, r, t in market.rows]
    wares = [{"asin": i, "categories": [["Comedy", "Drama"]], "title": _html(t)} for i, t in market.titles.items()]
    return {
        "reviews_Toys_5.json.gz": gzip.compress(_lines(reviews)),
        "meta_Toys.json.gz": gzip.compress("".join(f"{each!r}\n" for each in wares).encode()),
    }


def amazon_2018(market: Market) -> Files:
    reviews = [{"overall": float(r), "reviewerID": u, "asin": i, "unixReviewTime": t} for u, i, r, t in market.rows]
    wares = [{"category": ["Comedy", "Drama"], "title": _html(t), "asin": i} for i, t in market.titles.items()]
    return {"Toys_5.json.gz": gzip.compress(_lines(reviews)), "meta_Toys.json.gz": gzip.compress(_lines(wares))}


def amazon_2023(market: Market) -> Files:
    reviews = [
        {"rating": float(r), "title": "Nice", "asin": f"{i}v", "parent_asin": i, "user_id": u, "timestamp": 1000 * t}
        for u, i, r, t in market.rows
    ]
    wares = [
        {"main_category": "Toys", "title": _html(t), "categories": ["Comedy", "Drama"], "parent_asin": i}
        for i, t in market.titles.items()
    ]
    return {"Toys.jsonl": _lines(reviews), "meta_Toys.jsonl": _lines(wares)}


def microlens_csv(market: Market) -> Files:
    return {
        "MicroLens-50k_pairs.csv": _csv(
            ["user", "item", "timestamp"], [(u, i, 1000 * t) for u, i, _, t in market.rows]
        ),
        "MicroLens-50k_titles.csv": _csv(["item", "title"], market.titles.items()),
    }


def microlens_tsv(market: Market) -> Files:
    return {
        "MicroLens-50k_pairs.tsv": "".join(f"{u}\t{' '.join(items)}\n" for u, items in market.taken.items()).encode(),
        "MicroLens-50k_titles.csv": _csv(["item", "title"], market.titles.items()),
    }


def steam(market: Market) -> Files:
    """Its dates are days: a day a row keeps the order."""
    days = pl.Series([t - START for *_, t in market.rows])
    dates = (pl.lit(0).cast(pl.Date) + pl.duration(days=pl.lit(days) + 15000)).alias("date")
    texts = pl.select(dates.dt.to_string("%Y-%m-%d"))["date"].to_list() if market.rows else []
    reviews = [
        f"{{u'username': {u!r}, u'hours': 1.0, u'product_id': u'{i}', u'date': u'{date}'}}\n"
        for (u, i, _, _), date in zip(market.rows, texts, strict=True)
    ]
    games = [
        f"{{u'genres': [u'Comedy', u'Drama'], u'app_name': {_html(t)!r}, u'id': u'{i}'}}\n"
        for i, t in market.titles.items()
    ]
    return {
        "steam_reviews.json.gz": gzip.compress("".join(reviews).encode()),
        "steam_games.json.gz": gzip.compress("".join(games).encode()),
    }


def yelp(market: Market) -> Files:
    dates = pl.from_epoch(pl.Series([t for *_, t in market.rows], dtype=pl.Int64)).dt.strftime("%Y-%m-%d %H:%M:%S")
    reviews = [
        {"review_id": "x", "user_id": u, "business_id": i, "stars": float(r), "text": "Nice", "date": date}
        for (u, i, r, _), date in zip(market.rows, dates, strict=True)
    ]
    wares = [{"business_id": i, "name": t, "categories": "Comedy, Drama"} for i, t in market.titles.items()]
    return {
        "yelp_academic_dataset_review.json": _lines(reviews),
        "yelp_academic_dataset_business.json": _lines(wares),
    }


def goodreads(market: Market) -> Files:
    dates = pl.from_epoch(pl.Series([t for *_, t in market.rows], dtype=pl.Int64)).dt.strftime(
        "%a %b %d %H:%M:%S +0000 %Y"
    )
    events = [
        {"user_id": u, "book_id": i, "rating": r, "is_read": True, "date_added": date}
        for (u, i, r, _), date in zip(market.rows, dates, strict=True)
    ]
    wares = [
        {"book_id": i, "title": t, "popular_shelves": [{"count": "1", "name": "x"}]} for i, t in market.titles.items()
    ]
    return {
        "goodreads_interactions_poetry.json.gz": gzip.compress(_lines(events)),
        "goodreads_books_poetry.json.gz": gzip.compress(_lines(wares)),
    }


def recbole(market: Market) -> Files:
    return {
        "toy.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in reversed(market.rows)).encode(),
        "toy.item": b"item_id:token\ttitle:token_seq\tgenre:token_seq\n"
        + "".join(f"{i}\t{t}\tComedy Drama\n" for i, t in market.titles.items()).encode(),
    }


def sequences(market: Market) -> Files:
    """Its users come in the order of the file."""
    users = sorted(market.taken, key=int)
    return {
        "sequences.txt": "".join(f"{u} {' '.join(market.taken[u])}\n" for u in users).encode(),
        "items.tsv": b"item_id\ttitle\tcategories\n"
        + "".join(f"{i}\t{t}\tComedy|Drama\n" for i, t in market.titles.items()).encode(),
    }


def table_csv(market: Market) -> Files:
    return {
        "interactions.csv": _csv(["user_id", "item_id", "rating", "timestamp"], market.rows),
        "items.csv": _csv(
            ["item_id", "title", "categories"], [(i, t, "Comedy|Drama") for i, t in market.titles.items()]
        ),
    }


def table_parquet(market: Market) -> Files:
    rows = pl.DataFrame(market.rows, schema=["user", "product_id", "stars", "when"], orient="row")
    rows = rows.with_columns(pl.from_epoch("when").alias("time"), pl.col("user").cast(pl.Categorical)).drop("when")
    labels = [["Comedy", "Drama"]] * len(market.titles)
    wares = pl.DataFrame({"item_id": [*market.titles], "name": [*market.titles.values()], "categories": labels})
    return {"interactions.parquet": _parquet(rows), "items.parquet": _parquet(wares)}


def table_jsonl(market: Market) -> Files:
    rows = [
        {"uid": u, "iid": i, "ts": t, "score": r, "name": market.titles[i], "genres": ["Comedy", "Drama"]}
        for u, i, r, t in market.rows
    ]
    return {"interactions.jsonl": _lines(rows)}


FORMS: dict[str, Callable[[Market], Files]] = {
    each.__name__: each
    for each in (
        ml_100k, ml_10m, ml_32m, amazon_2014, amazon_2018, amazon_2023, microlens_csv, microlens_tsv, steam, yelp,
        goodreads, recbole, sequences, table_csv, table_parquet, table_jsonl,
    )
}  # fmt: skip


def _html(title: str) -> str:
    """As a title stands in a page's source."""
    return html.escape(title, quote=False)


def _csv(header: Sequence[str], rows: object) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])  # type: ignore[misc]
    return text.getvalue().encode()


def _lines(objects: Sequence[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in objects).encode()


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()
