"""Yelp's academic data set: yelp_academic_dataset_review.json and yelp_academic_dataset_business.json."""

from pathlib import Path

from pplr_audit.data.dataset import Dataset
from pplr_audit.data.readers.reviews import Names, files, read_published, stem
from pplr_audit.errors import InputError

REVIEWS, BUSINESSES = "yelp_academic_dataset_review", "yelp_academic_dataset_business"
NAMES = Names(
    user=("user_id",),
    item=("business_id",),
    time=("date",),
    rating=("stars",),
    ware=("business_id",),
    title=("name",),
    categories=("categories",),
    between=",",
    from_web=True,
)


class Yelp:
    """JSON lines. Source: the documentation of the Yelp Open Dataset."""

    def detect(self, path: Path) -> bool:
        """True if there is a file of reviews."""
        return REVIEWS in files(path) if path.is_dir() else stem(path) in (REVIEWS, BUSINESSES)

    def read(self, path: Path) -> Dataset:
        """Every review is an interaction with a business."""
        folder = path if path.is_dir() else path.parent
        known = files(folder)
        for name in (REVIEWS, BUSINESSES):
            if name not in known:
                raise InputError(f"{folder}: no {name}.json (accepted: {REVIEWS}.json and {BUSINESSES}.json)")
        return read_published(folder.resolve().name, known[REVIEWS], known[BUSINESSES], NAMES)
