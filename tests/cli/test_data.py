"""`pplr-audit data`: what a source holds, and broken sources refused."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pplr_audit.cli.main import app
from tests.data.forms import FORMS, TOY

CORPUS = Path(__file__).parents[1] / "fuzz" / "data"


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.mark.parametrize("case", sorted(folder.name for folder in CORPUS.iterdir()))
def test_a_broken_source_is_refused_in_one_line_with_exit_code_2(case):
    done = run(CORPUS / case)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert re.search((CORPUS / case / "said.regex").read_text(encoding="utf-8").strip(), done.stderr), done.stderr
    assert done.stdout == ""


@pytest.fixture
def movies(tmp_path):
    for name, content in FORMS["ml_100k"](TOY).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_json_form_says_what_was_found(movies):
    found = json.loads(run(movies, "--json").stdout)
    assert (found["reader"], found["users"], found["items"], found["interactions"]) == ("movielens", 3, 3, 7)
    assert found["density"] == pytest.approx(7 / 9)
    assert found["history_length"] == {"least": 1, "median": 2, "mean": pytest.approx(7 / 3), "most": 4}
    assert found["users_too_short_for_leave_one_out"] == 2
    assert found["times"] == ["2017-07-14T02:40:00+00:00", "2017-07-14T02:40:06+00:00"]
    assert found["ratings"]["least"] == 1
    assert found["attributes"]["gender"] == {"different": 1, "unknown": 0, "commonest": {"F": 3}}
    assert found["titles"]["missing"] == 0
    assert {Path(file["path"]).name: file["encoding"] for file in found["files"]} == {
        "u.data": "utf-8",
        "u.item": "iso-8859-1",
        "u.user": "utf-8",
    }


def test_it_says_how_many_users_would_be_in_each_group_or_why_there_can_be_none(movies):
    found = json.loads(
        run("synthetic", "--json", "--set", "data.reserve=0.25", "--set", "data.partition=random").stdout
    )
    assert found["groups"]["reserve"] == 150
    assert sum(found["groups"].values()) == 600
    shown = " ".join(run("synthetic", "--set", "data.partition=random").stdout.replace("│", " ").split())
    assert re.search(r"for an audit \d+ members, who train; \d+ non-members, left out by a coin; 60 in reserve", shown)
    assert json.loads(run(movies, "--json").stdout)["groups"]["refused"].startswith("data: of the 3 users")


def test_a_reserve_that_leaves_too_few_users_ends_a_run_with_exit_code_2_and_one_line(tmp_path):
    whole = ["run", "quickstart", "--set", "data.reserve=0.999", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, whole)
    assert done.exit_code == 2
    assert re.search(r"data\.reserve: a share of 0\.999 takes \d+ of 1600 participating users and leaves", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_table_names_readers_encodings_and_titles(movies):
    shown = run(movies).stdout
    for expected in (
        "movielens",
        "iso-8859-1",
        "2017-07-14T02:40:00",
        "gender",
        "F (3)",
        "0 missing",
        "density 77.78%",
    ):
        assert expected in shown


def test_settings_are_those_of_a_scenario(movies):
    found = json.loads(run(movies, "--json", "--set", "data.duplicates=first", "--set", "data.core=2").stdout)
    assert found["interactions"] == 4
    assert found["notes"] == {"interactions_repeated": 1, "interactions_outside_core": 2, "users_left_without": 1,
                              "items_outside_core": 1}  # fmt: skip
    done = run(movies, "--set", "data.cores=5")
    assert done.exit_code == 2
    assert "did you mean 'core'" in done.stderr


UNRATED = {
    "Cups.jsonl": "".join(
        json.dumps({"user_id": u, "parent_asin": i, "rating": None, "timestamp": 1_600_000_000_000}) + "\n"
        for u, i in (("ann", "x"), ("ann", "y"), ("bo", "x"))
    ),
    "meta_Cups.jsonl": '{"parent_asin": "x", "title": "Mug"}\n{"parent_asin": "y", "title": "Bowl"}\n',
}


def written(folder, files):
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_ratings_that_are_all_missing_are_none(tmp_path):
    folder = written(tmp_path, UNRATED)
    assert json.loads(run(folder, "--json").stdout)["ratings"] is None
    assert re.search(r"ratings\W+none", run(folder).stdout)


def test_ratings_that_are_partly_missing_are_counted(tmp_path):
    files = {**UNRATED, "Cups.jsonl": UNRATED["Cups.jsonl"].replace("null", "3.4e38", 2)}
    found = json.loads(run(written(tmp_path, files), "--json").stdout)["ratings"]
    assert found == dict.fromkeys(("least", "median", "mean", "most"), 3.4e38) | {"missing": 1}


@pytest.mark.parametrize("wrong", ["1e39", "-1e300", '"Infinity"', '"nan"'])
def test_a_rating_that_is_too_large_is_refused_by_line(tmp_path, wrong):
    files = {**UNRATED, "Cups.jsonl": UNRATED["Cups.jsonl"].replace("null", wrong, 1)}
    done = run(written(tmp_path, files), "--json")
    assert done.exit_code == 2
    assert re.search(r"Cups\.jsonl, line 1: rating is .* \(accepted: a finite number\)", done.stderr)


CARTS = (
    "user_id,item_id,date,title,gender,price\nann,a,2021-03-04,<b>Emma</b> &amp; co,F,3\n"
    "ann,b,2021-03-04,Ulysses </s> \u202eevil,F,3\nbob,a,2021-03-05,<b>Emma</b> &amp; co,M,4\n"
    "bob,c,2021-03-02,[INST] [b]bold[/b] \U000e0041,M,3\n"
)


def test_it_says_what_became_of_each_column_and_shows_three_histories(tmp_path):
    done = run(written(tmp_path, {"carts.csv": CARTS}), "--json")
    found = json.loads(done.stdout)
    (file,) = found["files"]
    assert file["columns"] == {
        "user_id": "user", "item_id": "item", "date": "time", "title": "title", "gender": "attribute of the user",
    }  # fmt: skip
    assert (file["unused"], file["encoding"], found["time_ties"]) == (["price"], "utf-8", 0.5)
    assert (found["titles"]["with_markup"], found["titles"]["with_control_tokens"]) == (1, 2)
    assert [(each["user"], each["length"]) for each in found["examples"]] == [("ann", 2), ("bob", 2)]
    assert found["examples"][1]["first"] == [
        {"item": "c", "title": "[INST] [b]bold[/b] \U000e0041", "time": "2021-03-02T00:00:00+00:00"},
        {"item": "a", "title": "<b>Emma</b> &amp; co", "time": "2021-03-05T00:00:00+00:00"},
    ]
    # The values are the same, and nothing in them acts on a terminal.
    assert "\u202e" not in done.stdout
    assert r"\u202eevil" in done.stdout
    assert r"\udb40\udc41" in done.stdout


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_says_what_it_took_for_user_item_and_title(tmp_path, form):
    for name, content in FORMS[form](TOY).items():
        (tmp_path / name).write_bytes(content)
    found = json.loads(run(tmp_path, "--json").stdout)
    roles = [role for file in found["files"] for role in file["columns"].values()]
    assert roles.count("title") == 1
    assert any(role.startswith("user") for role in roles)
    assert any("item" in role for role in roles)
    assert ("time" in roles) == (found["times"] is not None)
    assert ("rating" in roles) == (found["ratings"] is not None)
    assert ("categories" in roles) == (found["with_category"] > 0)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_examples_can_be_left_out(tmp_path, form):
    folder = written(tmp_path, {"carts.csv": CARTS})
    assert "Ulysses" in run(folder, *form).stdout
    shown = run(folder, "--no-examples", *form).stdout
    assert not any(word in shown for word in ("Ulysses", "Emma", "ann", "bob"))
    assert re.search("with.markup", shown)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_values_of_single_users_are_examples_too(tmp_path, form):
    people = "user_id,email,plan\nann,ann@mail.example,basic\nbob,bob@mail.example,basic\n"
    folder = written(tmp_path, {"interactions.csv": CARTS, "users.csv": people})
    assert "ann@mail.example" in run(folder, *form).stdout
    shown = run(folder, "--no-examples", *form).stdout
    assert "@mail.example" not in shown
    assert "basic" in shown


def test_the_table_shows_it_in_eighty_columns(tmp_path, monkeypatch):
    from rich.console import Console

    from pplr_audit.cli import main as cli

    monkeypatch.setattr(cli, "console", lambda: Console(width=80))
    lines = run(written(tmp_path, {"carts.csv": CARTS.replace("gender", "g" * 100)})).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    for expected in (
        "time: date",
        "not used",
        "price",
        "50.0% at the same time",
        "1 with markup, 2 with control",
        "user ann",
        "[b]bold[/b]",
        r"\u202eevil",
    ):
        assert expected in shown
    assert "\u202e" not in shown


def test_letters_that_could_steer_a_terminal_are_shown_as_such(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n1,a\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item_id,title\na,A\n", encoding="utf-8")
    (tmp_path / "users.csv").write_text("user_id,\x1b[31mred\n1,\x1b[2Jgone [b]bold[/b]\n", encoding="utf-8")
    shown = run(tmp_path).stdout
    assert "\x1b" not in shown
    assert "[b]bold[/b]" in shown
