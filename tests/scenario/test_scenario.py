"""A scenario is read safely, checked field by field, and says where it is wrong."""

import json
import math
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pplr_audit import scenarios
from pplr_audit.errors import InputError
from pplr_audit.scenario import json_schema as scenario_schema
from pplr_audit.scenario.loading import digest, dump, from_text, load
from pplr_audit.scenario.schema import Audit, Data, Scenario


def _write(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def _message(source: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(source, overrides)
    return str(caught.value)


def test_an_empty_file_stands_for_all_the_defaults(tmp_path: Path) -> None:
    assert load(_write(tmp_path, "")) == Scenario()
    assert load(_write(tmp_path, "# only a comment\ndata:\nmodel: {lora: }\n")) == Scenario()


@pytest.mark.parametrize("name", list(scenarios.shipped()))
def test_every_shipped_scenario_loads_once_it_has_its_data(name: str) -> None:
    overrides = ["data.path=somewhere"] if "path: null" in scenarios.text(name) else []
    assert load(name, overrides).name == name
    assert scenarios.shipped()[name], "the first comment describes the scenario"
    assert scenarios.text(name).startswith("# yaml-language-server: $schema=scenario.schema.json\n")


def test_quickstart_needs_no_data_and_movielens_says_how_to_give_it() -> None:
    assert load("quickstart").data.path == "synthetic"
    assert "ml-100k.yaml, line 5: data.path is required" in _message("ml-100k")
    assert "--set data.path=" in _message("ml-100k")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n  clients: 0\n", "line 2: data.clients: 0 is not accepted (accepted: a whole number, 2 or more)"),
        ("data:\n  clients: many\n", "line 2: data.clients: 'many' is not accepted"),
        ("seed: true\n", "line 1: seed: True is not accepted"),
        ("data:\n\n  clinets: 3\n", "line 3: data.clinets: unknown field 'clinets' in data; did you mean 'clients'?"),
        ("modle: {}\n", "line 1: modle: unknown field 'modle' in the scenario; did you mean 'model'?"),
        ("data: [1]\n", "line 1: data: [1] is not accepted (accepted: a section with path,"),
        ("data: {partition: kmean}\n", "data.partition: 'kmean' is not accepted (accepted: one of kmeans, "),
        ("name: a/b\n", "line 1: name: 'a/b' is not accepted (accepted: text, of the form "),
        ("training: {learning_rate: .inf}\n", "training.learning_rate: '.inf' is not accepted"),
        ("audit:\n  cuts:\n  - [1, 1]\n  - [1, -1]\n", "line 4: audit.cuts[1][1]: -1 is not accepted"),
        ("audit: {cuts: most}\n", "audit.cuts: 'most' is not accepted (accepted: all, or a list, each a list of 2"),
        ("audit: {cuts: [[1, 1], [2, 0], [1, 1]]}\n", "audit.cuts: [1, 1] stands there twice"),
        ("audit: {cuts: []}\n", "audit.cuts: an empty list is not accepted"),
        ("audit: {rounds: [1, 9]}\ntraining: {rounds: 5}\n", "line 1: audit.rounds: round 9 is not among the 5"),
        ("audit:\n  attacks:\n  - los\n", "line 3: audit.attacks[0]: unknown name 'los'; did you mean 'loss'?"),
        ("audit: {attacks: [{ridge: 3}]}\n", "line 1: audit.attacks[0].ridge: 3 is not accepted"),
        ("audit: {attacks: [{}]}\n", "line 1: audit.attacks[0]: {} is not accepted"),
        ("training: {strategy: pplrr}\n", "training.strategy: unknown name 'pplrr'; did you mean 'pplr'?"),
        ("data: {reader: recbol}\n", "data.reader: unknown name 'recbol'; did you mean 'recbole'?"),
        ("data: {market: {users: 20}, clients: 30}\n", "data.clients: 30 clients cannot share 20 users"),
        ("data: {users: 3}\n", "data.clients: 5 clients cannot share 3 users"),
        ("data: {history: 500}\n", "data.history: 500 items are too many for a market of"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_what_is_accepted(tmp_path: Path, text: str, expected: str) -> None:
    message = _message(_write(tmp_path, text))
    assert message.startswith(f"{tmp_path}/mine.yaml, line ")
    assert expected in message
    assert "\n" not in message


def test_several_wrong_fields_are_all_named_one_line_each(tmp_path: Path) -> None:
    lines = _message(_write(tmp_path, "seed: -1\ndata: {clients: 1}\nfoo: 1\n")).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["seed", "data.clients", "foo"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "line 2: a stands here a second time (first on line 1)"),
        ("data: {path: x}\nseed: 1\ndata: {clients: 2}\n", "line 3: data stands here a second time"),
        ("- 1\n", "holds no fields"),
        ("just text\n", "holds no fields"),
        ("data:\n\tpath: x\n", "line 2: not YAML"),
        ("data: [1\n", "not YAML"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("name: !!python/object/apply:os.system [x]\n", "line 1: the tag"),
        ("? [1]\n: 2\n", "line 1: a key must be a name"),
        ("? " + "a" * 100_000 + "\n: 2\n", "line 1: a key must be a name"),
        ("- a\n" * 200_000, "more than 10000 values"),
        ("a: &a [*a]\n", "nested more than 32 deep"),
        ("[" * 5000, "nested more than 32 deep"),
        ("seed: " + "9" * 5000, "cannot be read as int"),
        ("seed: 1e999", "cannot be read as float"),
        ("#" * 1_000_001, "larger than 1000 kB"),
        ("name: a\0b", "not YAML"),
    ],
)
def test_what_no_scenario_should_hold_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in _message(_write(tmp_path, text))


def test_aliases_that_unfold_without_end_are_refused_at_once(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    assert "more than 10000 values" in _message(_write(tmp_path, bomb))


def test_text_that_looks_like_something_else_in_older_yaml_stays_text(tmp_path: Path) -> None:
    assert load(_write(tmp_path, "name: no\n")).name == "no"
    assert load(_write(tmp_path, "name: 2024-01-01\n")).name == "2024-01-01"
    assert load(_write(tmp_path, "training: {learning_rate: 1e-3}\n")).training.learning_rate == 0.001


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert "no such scenario and no such file; did you mean 'quickstart'?" in _message("quickstrat")
    assert "a folder; give a scenario's YAML file" in _message(str(tmp_path))
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe\n")
    assert "bytes.yaml: not UTF-8" in _message(str(tmp_path / "bytes.yaml"))


def test_overrides_make_sections_and_the_last_one_wins(tmp_path: Path) -> None:
    source = _write(tmp_path, "name: x\n")
    loaded = load(source, ["model.lora.rank=2", "training={rounds: 9}", "training.rounds=3", "audit.cuts=[[1, 0]]"])
    assert (loaded.model.lora.rank, loaded.training.rounds, loaded.audit.cuts) == (2, 3, ((1, 0),))
    assert load(source, ["data.users=7", "data.users="]).data.users is None


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "data.clients=0",
            "--set data.clients=0: data.clients: 0 is not accepted (accepted: a whole number, 2 or more)",
        ),
        (
            "data.clinets=3",
            "--set data.clinets=3: data.clinets: unknown field 'clinets' in data; did you mean 'clients'?",
        ),
        ("audit.attacks=[rige]", "--set audit.attacks=[rige]: audit.attacks[0]: unknown name 'rige'; did you mean"),
        ("audit={rounds: [7]}", "--set audit={rounds: [7]}: audit.rounds: round 7 is not among the 3"),
        ("name.x=1", "--set name.x=1: name is not a section that could hold 'x'"),
        ("name", "--set name: not of the form a.b=value"),
        ("a..b=1", "--set a..b=1: not of the form a.b=value"),
        ("data.clients=[1", "--set data.clients=[1: not YAML"),
        ("data={clients: 2, clients: 3}", "clients stands here a second time"),
        ("name=\udcff", "not YAML"),
        ("a\rb=1", r"--set a\rb=1: a\rb: unknown field"),
        ("data.history=99999999999", "data.history: a whole number of at most 4294967296"),
    ],
)
def test_a_wrong_override_is_named(setting: str, expected: str) -> None:
    message = _message("quickstart", setting)
    assert message.startswith("--set ")
    assert expected in message


def test_paths_in_a_file_start_there_and_in_overrides_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    (there / "org" / "model").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    source = _write(there, "data: {path: films}\nmodel: {backbone: org/model}\n")
    assert load(source).data.path == str(there / "films")
    assert load(source, ["data.path=../films"]).data.path == str(tmp_path / "films")
    assert load(source, ["data={path: films}"]).data.path == str(here / "films")
    assert load(source).model.backbone == str(there / "org" / "model")
    assert load(source, ["model.backbone=org/model"]).model.backbone == "org/model"
    assert load(source, ["model.backbone=./org/model"]).model.backbone == str(here / "org" / "model")
    assert load(source, ["data.path=synthetic"]).data.path == "synthetic"
    assert load(source, ["data.path=~/films"]).data.path == str(Path("~/films").expanduser())


def test_an_old_scenario_is_read_also_where_its_plugins_are_gone() -> None:
    old = Scenario(audit=Audit(attacks=("of_a_third_party",)))
    assert from_text(dump(old)) == old


_PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_PLAIN, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    name=st.text(string.ascii_letters + string.digits, min_size=1, max_size=20),
    path=_PLAIN.filter(bool),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    attack=st.dictionaries(_PLAIN, _VALUES, max_size=3),
)
def test_what_is_dumped_reads_back_the_same(name: str, path: str, rate: float, attack: dict[str, object]) -> None:
    written = Scenario.model_validate(
        {
            "name": name,
            "data": {"path": path},
            "training": {"learning_rate": rate},
            "audit": {"attacks": [{"ridge": attack}]},
        }
    )
    read = from_text(dump(written))
    assert read == written
    assert dump(read) == dump(written)
    assert digest(read) == digest(written)


def test_the_digest_follows_what_is_said_and_not_how(tmp_path: Path) -> None:
    first = load(_write(tmp_path, "seed: 1\ndata: {clients: 5, history: 3}\n"))
    second = load(_write(tmp_path, "# the same\ndata:\n  history: 3\nseed: 1\nmodel: {lora: {alpha: 16}}\n"))
    assert digest(first) == digest(second)
    assert digest(first) != digest(Scenario(seed=2, data=Data(history=3)))
    assert len(digest(first)) == 64


def test_numbers_that_json_cannot_hold_never_get_into_a_scenario() -> None:
    with pytest.raises(ValueError, match="finite"):
        Scenario.model_validate({"training": {"learning_rate": math.inf}})


def test_the_schema_for_editors_is_up_to_date() -> None:
    shipped = (scenarios.FILES / "scenario.schema.json").read_text(encoding="utf-8")
    assert shipped == scenario_schema.text(), "run: make schema"


def test_the_schema_for_editors_accepts_what_we_accept() -> None:
    Draft202012Validator.check_schema(scenario_schema.json_schema())
    values = json.loads(load("quickstart").model_dump_json())
    Draft202012Validator(scenario_schema.json_schema()).validate(values)
