"""Small folders in each format, written where a test wants them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Files = Mapping[str, str | bytes]
Write = Callable[[Files], Path]

RECBOLE = {
    "toy.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "10\ta\t5\t300\n9\tb\t4\t100\n10\tb\t3\t100\n10\tc\t1\t200\n9\tc\t2\t100\n9\ta\t2\t50\n"
    ),
    "toy.item": (
        "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
        "a\tToy Story\tAnimation Children's\nb\tGoldenEye\tAction\nc\tHeat\tAction\n"
    ),
    "toy.user": "user_id:token\tgender:token\tage:token\n9\tF\t24\n10\tM\t53\n11\tF\t30\n1\tM\t31\n",
}
MOVIELENS = {
    "ratings.dat": "1::10::5::300\n2::20::3::10\n1::20::4.5::100\n",
    "movies.dat": "10::Toy Story (1995)::Animation|Children's\n20::Misérables, Les (1995)::Drama\n".encode(
        "iso-8859-1"
    ),
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
}
ITEMS = "item_id\tasin\ttitle\tcategories\n1\tB1\tX: Beyond\tGames|PC\n2\tB2\tAnno\tGames\n3\tB3\tZelda\t\n"
PLAIN = {"items.tsv": ITEMS, "sequences.txt": "7 1 2 3\n5 3 1\n"}
PARTS = {
    "items.tsv": ITEMS,
    "sequential_train.txt": "1 1 2 3\n2 3 1\n",
    "sequential_valid.txt": "1\n2 2\n",
    "sequential_test.txt": "1\n2 3\n",
}
WHOLE = {
    "items.tsv": ITEMS,
    "sequences.tsv": "user_id\tcomplete\thistory\ttest_item\n1\t0\t1 2\t3\n2\t1\t3 1\t2\n",
    "users.tsv": "user_id\tgender\n2\tF\n1\tM\n7\tF\n",
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write these files into a folder of their own and give the folder."""

    def into(files: Files) -> Path:
        folder = tmp_path / "toy"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return into


@pytest.fixture
def recbole() -> Files:
    return RECBOLE


@pytest.fixture
def movielens() -> Files:
    return MOVIELENS


@pytest.fixture
def plain() -> Files:
    return PLAIN


@pytest.fixture
def parts() -> Files:
    return PARTS


@pytest.fixture
def whole() -> Files:
    return WHOLE
