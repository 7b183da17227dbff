"""Whatever stands in a scenario or behind --set: a scenario, or one message that names where it is wrong."""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from pplr_audit.audit.extension import Extension
from pplr_audit.cli.attack_options import from_options
from pplr_audit.cli.main import app
from pplr_audit.errors import InputError
from pplr_audit.scenario.loading import digest, dump, from_text, load
from pplr_audit.scenario.schema import Scenario

BROKEN = sorted((Path(__file__).parent / "scenarios").iterdir())
SCHEMA = Scenario.model_json_schema()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
PIECES = (
    *("name", "seed", "data", "path", "model", "lora", "targets", "audit", "cuts", "attacks", "rounds", "training"),
    *(": ", ":", "- ", "-", "\n", "\n  ", "\n    ", " ", "\t", ", ", "[", "]", "{", "}", '"', "'", "#", "|", ">", "? "),
    *("&a ", "*a", "<<: *a", "!!str ", "!!binary ", "!x ", "!%ff", "%YAML 9.9\n", "%TAG ! x\n", "---\n", "...\n"),
    *(".nan", ".inf", "1e999", "-0", "0x1f", "1_000", "~", "null", "true", "no", "9" * 400, "2024-01-01", "12:30:00"),
    *("\\ud800", "\\Uffffffff", "\\x00", "\ufeff", "\x85", "\u2028", "\x1b[2J", "🙂"),
)
YAMLISH = st.lists(st.sampled_from(PIECES) | TEXT, max_size=30).map("".join)
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


def values(part: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a part of the scenario's JSON Schema accepts, so that new fields are tried as they come."""
    if "$ref" in part:
        part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
    if "anyOf" in part:
        return st.one_of([values(branch) for branch in part["anyOf"]])
    if "enum" in part or "const" in part:
        return st.sampled_from(part.get("enum", [part.get("const")]))
    by_type: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "null": st.none,
        "boolean": st.booleans,
        "integer": lambda: st.integers(
            part.get("minimum", -9), min(part.get("maximum", 10**6), part.get("minimum", -9) + 200)
        ),
        "number": lambda: st.floats(
            part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum", part.get("exclusiveMaximum")),
            exclude_min="exclusiveMinimum" in part, exclude_max="exclusiveMaximum" in part,
            allow_nan=False, allow_infinity=False,
        ),
        "string": lambda: st.from_regex(part["pattern"], fullmatch=True)
        if "pattern" in part
        else st.text(st.characters(exclude_categories=["Cs"]), min_size=part.get("minLength", 0), max_size=12),
        "array": lambda: st.tuples(*map(values, part["prefixItems"])).map(list)
        if "prefixItems" in part
        else st.lists(values(part["items"]), min_size=1, max_size=4, unique_by=repr),
        "object": lambda: st.fixed_dictionaries(
            {}, optional={name: values(child) for name, child in part["properties"].items()}
        )
        if "properties" in part
        else st.dictionaries(TEXT, st.dictionaries(TEXT, ANYTHING, max_size=3), min_size=1, max_size=1),
    }  # fmt: skip
    return by_type[part["type"]]()


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    try:
        return Scenario.model_validate(draw(values(SCHEMA)))
    except ValidationError as error:
        # Fields that are right one by one and wrong together, or a pattern that a line end slips through.
        assume(all(problem["type"] in ("conflict", "string_pattern_mismatch") for problem in error.errors()))
        assume(False)
        raise


def is_scenario_or_message(source: str, overrides: tuple[str, ...], *named: str) -> None:
    try:
        loaded = load(source, overrides)
    except InputError as error:
        lines = str(error).splitlines()
        assert lines
        assert all(line.startswith(named) for line in lines), lines
    else:
        assert from_text(dump(loaded)) == loaded


@FUZZ
@given(scenarios())
def test_every_valid_scenario_reads_back_as_it_was_written(written: Scenario) -> None:
    text = dump(written)
    read = from_text(text)
    assert read == written
    assert dump(read) == text
    assert digest(read) == digest(written)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "scenario.yaml"


@FUZZ
@given(data=st.binary(max_size=200) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"\xef\xbb\xbfname: x")
@example(b"name: \xff")
def test_arbitrary_bytes_are_a_scenario_or_a_message_that_names_the_file(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    is_scenario_or_message(str(file), (), str(file))


@FUZZ
@given(text=YAMLISH)
@example('name: "\\Uffffffff"')
@example('audit: {attacks: [{ridge: {a: "\\ud800"}}]}')
@example(f"%YAML 1.{'9' * 5000}\n--- {{}}")
@example("model: {lora: {alpha: 1" + "0" * 400 + "}}")
@example("data: {market: {users: 1" + "0" * 4000 + "}}")
@example("name: &a x\ndata: {path: *a, reader: *b}")
def test_anything_like_yaml_is_a_scenario_or_a_message_that_names_the_file(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    is_scenario_or_message(str(file), (), str(file))


@FUZZ
@given(written=scenarios(), at=st.floats(0, 1), piece=st.sampled_from(PIECES) | TEXT, gone=st.integers(0, 30))
def test_a_scenario_with_a_mistake_in_it_is_one_still_or_a_message(
    file: Path, written: Scenario, at: float, piece: str, gone: int
) -> None:
    text = dump(written)
    place = int(at * len(text))
    file.write_text(text[:place] + piece + text[place + gone :], encoding="utf-8")
    is_scenario_or_message(str(file), (), str(file))


FIELDS = (
    "seed",
    "data",
    "data.path",
    "data.market.users",
    "model.lora.alpha",
    "audit.cuts",
    "audit.attacks",
    "defenses",
)


@FUZZ
@given(setting=TEXT | YAMLISH | st.tuples(st.sampled_from(FIELDS), YAMLISH | TEXT).map("=".join))
@example("data.clients." + "a." * 5000 + "a=1")
@example("data.\udcff=1")
@example("=")
@example("\x1e\x85=\n1")
@example("model.backbone=" + "a/" * 2040)
@example("data.path=~nobody-of-this-name/x")
@example("data.path=\x00")
def test_anything_behind_set_is_a_scenario_or_a_message_that_names_it(setting: str) -> None:
    is_scenario_or_message("quickstart", (setting,), "--set ", "quickstart.yaml")


@pytest.mark.parametrize("source", BROKEN, ids=lambda path: path.stem)
def test_a_broken_file_ends_with_exit_code_2_and_one_message_with_file_and_place(source: Path) -> None:
    result = CliRunner().invoke(app, ["run", str(source)])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith((f"{source}, line ", f"{source}: ")), line
    told = source.read_bytes().partition(b"\n")[0].decode("ascii").removeprefix("# expected: ")
    assert told in line
    assert set(line) <= set(string.printable) | set(str(source)), "nothing that acts on a terminal"


def test_the_corpus_of_broken_files_is_there() -> None:
    assert len(BROKEN) >= 20


@FUZZ
@given(attack=TEXT | YAMLISH.map("ridge={}".format), cut=TEXT | st.tuples(TEXT, TEXT).map(",".join))
@example("ridge=\udcff", "1\n,2")
def test_anything_behind_attack_and_cut_is_an_extension_or_a_message_that_names_it(attack: str, cut: str) -> None:
    for attacks, cuts in (([attack], []), ([], [cut])):
        try:
            asked = from_options(attacks, cuts)
        except InputError as error:
            (line,) = str(error).splitlines()
            assert line.startswith(("--attack ", "--cut "))
        else:
            assert asked is not None
            assert Extension.model_validate(json.loads(asked.model_dump_json())) == asked
