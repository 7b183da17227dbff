"""MovieLens as GroupLens ships it."""

import numpy as np
import pytest

from pplr_audit.data.readers.movielens import MovieLens
from pplr_audit.errors import InputError


def test_the_three_files_become_a_dataset(write, movielens):
    dataset = MovieLens().read(write(movielens))
    assert dataset.name == "toy"
    assert dataset.users == ("1", "2")
    assert dataset.catalogue.titles == ("Toy Story (1995)", "Misérables, Les (1995)")
    assert dataset.catalogue.categories == ("Animation|Children's", "Drama")
    assert [dataset.items[user].tolist() for user in range(2)] == [[1, 0], [1]]
    assert dataset.attributes["gender"] == ("F", "M")
    assert dataset.attributes["zip"] == ("48067", "70072")


def test_titles_in_utf_8_are_read_as_such(write, movielens):
    movies = movielens["movies.dat"].decode("iso-8859-1").encode()
    assert MovieLens().read(write({**movielens, "movies.dat": movies})).catalogue.titles[1] == "Misérables, Les (1995)"


def test_users_are_optional_and_any_file_names_the_folder(write, movielens):
    folder = write({name: movielens[name] for name in ("ratings.dat", "movies.dat")})
    assert MovieLens().read(folder / "movies.dat").attributes == {}


def test_many_shuffled_ratings_come_out_in_time_order(write, movielens):
    rng = np.random.default_rng(0)
    times = rng.permutation(20_000)
    ratings = "".join(f"{time % 50}::{10 + 10 * (time % 2)}::3::{time}\n" for time in times)
    dataset = MovieLens().read(write({**movielens, "ratings.dat": ratings}))
    assert dataset.users == tuple(str(user) for user in range(50))
    assert (dataset.items.lengths == 400).all()
    assert all(dataset.items[user].tolist() == [user % 2] * 400 for user in range(50))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ratings.dat", "1::10::5::300\n2::20::3", "ratings.dat, line 2: 3 columns: the file ends in the middle"),
        (
            "ratings.dat",
            "1::10::5::300\n2::20::3\n1::10::5::300\n",
            "ratings.dat, line 2: 3 columns (accepted: 4 columns",
        ),
        ("ratings.dat", "1::10::five::300\n", "ratings.dat, line 1: rating is 'five'"),
        ("ratings.dat", "1::10::5::\n", "ratings.dat, line 1: timestamp is empty"),
        (
            "ratings.dat",
            "1::11::5::1\n",
            "ratings.dat, line 1: item '11' has no title; without a title are the items of 1 of 1",
        ),
        ("ratings.dat", " \n", "ratings.dat: the file is empty"),
        ("movies.dat", "10::A::x\n10::B::x\n", "movies.dat, line 2: item_id '10' is there already, in line 1"),
        ("movies.dat", "10::::x\n", "movies.dat: no item has an id and a title"),
        ("users.dat", "1::F::1\n", "users.dat, line 1: 3 columns"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(write, movielens, name, content, said):
    with pytest.raises(InputError) as caught:
        MovieLens().read(write({**movielens, name: content}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(write, movielens):
    with pytest.raises(InputError, match=r"movies\.dat: no such file"):
        MovieLens().read(write({"ratings.dat": movielens["ratings.dat"]}))


def test_ratings_of_movies_without_a_title_or_without_a_row_are_left_out_and_counted(write, movielens):
    files = {
        **movielens,
        "ratings.dat": movielens["ratings.dat"] + "3::30::1::5\n3::20::1::6\n2::40::1::7\n",
        "movies.dat": movielens["movies.dat"] + b"30:: ::Drama\n",
    }
    dataset = MovieLens().read(write(files))
    assert dataset.users == ("1", "2", "3")
    assert dataset.catalogue.ids == ("10", "20")
    assert dataset.items.lengths.tolist() == [2, 1, 1]
    assert dataset.notes == {"items_without_title": 1, "interactions_without_title": 2}


def test_no_genres_listed_is_no_genre(write):
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,9\n1,2,4.0,9\n",
        "movies.csv": "movieId,title,genres\n1,A,(no genres listed)\n2,B,Drama|War\n",
    }
    assert MovieLens().read(write(files)).catalogue.categories == ("", "Drama|War")
