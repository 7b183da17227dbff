"""Blanks around ids, titles, categories and attributes say nothing, in every form."""

import pytest

from pplr_audit.data.load import read
from pplr_audit.errors import InputError
from tests.data.forms import FORMS, TOY

TIGHT = {
    "interactions.csv": "user_id,item_id,rating,timestamp\nAnn,a,4,10\nAnn,b,5,30\nBo,a,3,20\n",
    "items.csv": "item_id,title,genres\na,Emma,Novel\nb,Ulysses,Novel\n",
    "users.csv": "user_id,gender\nAnn,F\nBo,M\n",
}
LOOSE = {name: content.replace(",", " ,  ").replace("\n", "  \n ").rstrip() for name, content in TIGHT.items()}


def said(dataset):
    known = dataset.catalogue
    return (dataset.users, known.ids, known.titles, known.categories, dataset.items.values.tolist(),
            dataset.attributes, dataset.times.tolist(), dataset.ratings.tolist())  # fmt: skip


def test_blanks_after_and_before_commas_say_nothing(write):
    loose, tight = (said(read(str(write(files)), "auto")) for files in (LOOSE, TIGHT))
    assert loose == tight


def test_one_user_written_with_and_without_a_blank_is_one_user(write):
    files = {**TIGHT, "interactions.csv": "user_id,item_id\nAnn,a\nAnn ,b\n\u00a0Bo,a\n"}
    found = read(str(write(files)), "auto")
    assert (found.users, found.items.lengths.tolist()) == (("Ann", "Bo"), [2, 1])


def test_quotation_marks_behind_a_blank_are_quotes_where_the_header_has_blanks_too(write):
    files = {**TIGHT, "items.csv": 'item_id, title, "genres"\na, "Emma, a novel", Novel\nb, Ulysses, "Novel"\n'}
    found = read(str(write(files)), "auto")
    assert (found.catalogue.titles, found.catalogue.categories) == (("Emma, a novel", "Ulysses"), ("Novel", "Novel"))


@pytest.mark.parametrize("blank", ["", " ", "\t "])
def test_an_id_of_blanks_is_none(write, blank):
    files = {**TIGHT, "interactions.csv": f'user_id,item_id\nAnn,a\n"{blank}",b\n'}
    with pytest.raises(InputError, match=r"interactions\.csv, line 3: user_id is empty"):
        read(str(write(files)), "auto")


LOOSENED = {
    "ml_10m": {"movies.dat": (b"11::Toy Story (1995)::", b" 11 :: Toy Story (1995) :: ")},
    "ml_32m": {"ratings.csv": (b"7,11,", b" 7 , 11 ,"), "movies.csv": (b"\n11,", b"\n 11 ,")},
    "amazon_2023": {
        "Toys.jsonl": (b'"parent_asin": "11", "user_id": "7"', b'"parent_asin": "11 ", "user_id": " 7"'),
        "meta_Toys.jsonl": (b'"parent_asin": "11"', b'"parent_asin": " 11 "'),
    },
    "microlens_csv": {"MicroLens-50k_pairs.csv": (b"7,11,", b" 7, 11 ,")},
    "recbole": {"toy.inter": (b"7\t11\t", b" 7 \t11 \t"), "toy.item": (b"\n11\t", b"\n 11 \t")},
    "sequences": {"items.tsv": (b"\n11\t", b"\n 11 \t")},
    "yelp": {"yelp_academic_dataset_review.json": (b'"business_id": "11"', b'"business_id": "11 "')},
}


@pytest.mark.parametrize("form", LOOSENED)
def test_blanks_around_ids_say_nothing_in_the_forms_of_publishers(write, form):
    files = FORMS[form](TOY)
    tight = read(str(write(files)), "auto")
    for name, (before, after) in LOOSENED[form].items():
        assert before in files[name]
        files[name] = files[name].replace(before, after)
    loose = read(str(write(files)), "auto")
    assert loose.digest != tight.digest
    assert (loose.users, loose.catalogue) == (tight.users, tight.catalogue)
    assert loose.items.values.tolist() == tight.items.values.tolist()
