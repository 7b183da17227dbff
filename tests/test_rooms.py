"""The house keeps its rules: imports run one way, rooms are few, files are short, docstrings open with the point."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"errors", "scoring", "__version__"}
"""Any room may import these; they import nothing of ours but each other."""
FLOORS = (
    "__main__", "cli", "pipeline", "report", "audit", "training", "threat_model", "models", "data", "runs", "scenario",
)  # fmt: skip
"""The rooms from top to bottom. A room imports from rooms below it only."""
FORBIDDEN = {("report", "audit"), ("report", "training"), ("report", "models"), ("report", "data")}
"""Pairs that the order of the floors would allow: a report is made from the documents of a run alone."""
GUESTS = {"attacks", "defenses"}
OPEN_TO_GUESTS = (
    "pplr_audit.threat_model", "pplr_audit.data.prompts", "pplr_audit.models.token_tree", "pplr_audit.models.linears",
    "pplr_audit.models.rows", "pplr_audit.scoring", "pplr_audit.errors", "pplr_audit.attacks", "pplr_audit.defenses",
)  # fmt: skip
FRAGMENTS = {
    "What", "Of", "By", "Whether", "How", "Which", "Who", "Whose", "Where", "When", "With", "Without", "From", "In",
    "On", "At", "As", "For", "To", "Beside", "If", "That", "Those", "Than", "Between", "Under", "Up",
}  # fmt: skip
LONGEST_FILE, LONGEST_FUNCTION, MOST_NAMES = 400, 60, 12
LONG_FUNCTIONS: dict[str, str] = {}
"""Functions that are longer for a reason: ``path:function`` and the reason."""
MOST_ARGUMENTS = 8
MANY_ARGUMENTS = {
    "pplr_audit/cli/main.py:costs": "one for each option of the command",
    "pplr_audit/data/readers/table.py:__init__": "one for each setting of the reader",
    "pplr_audit/models/backbones/known_shapes.py:_llama_like": "one for each number of a published config",
    "attacks/decoding/segmentation.py:__init__": "one for each setting of the decoder",
}
"""Functions that take more for a reason."""
LONGEST_PIPELINE = 120
"""Lines of the main job, without imports, docstrings and empty lines."""


@cache
def files(*bases: str) -> tuple[Path, ...]:
    """The Python files of some folders; a linked folder is read where it lies."""
    linked = {"attacks", "defenses", "scenarios"}
    found = []
    for base in bases:
        for path in sorted((ROOT / base).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if not (parts[0] == "pplr_audit" and parts[1] in linked):
                found.append(path)
    return tuple(found)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of what a file imports of the package, with the line."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pplr_audit"):
            yield from ((f"{node.module}.{each.name}", node.lineno) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, node.lineno) for each in node.names if each.name.startswith("pplr_audit"))


def test_imports_run_from_the_top_floor_down() -> None:
    wrong = []
    for path in files("pplr_audit"):
        room = path.relative_to(ROOT / "pplr_audit").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name, line in imported(path):
            other = name.split(".")[1]
            if other == room or (room not in GROUND and other in GROUND) or other == "scenarios":
                continue
            down = room in FLOORS and other in FLOORS and FLOORS.index(room) < FLOORS.index(other)
            if not down or (room, other) in FORBIDDEN:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_imports_say_the_full_name() -> None:
    """A relative one would pass by the tests of this file."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files("pplr_audit", "attacks", "defenses", "scenarios")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not wrong, "\n".join(wrong)


def test_attacks_and_defenses_are_guests() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files(*sorted(GUESTS))
        for name, line in imported(path)
        if not any(name == open_ or name.startswith(f"{open_}.") for open_ in OPEN_TO_GUESTS)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_private_name_crosses_a_file() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files("pplr_audit", "attacks", "defenses")
        for name, line in imported(path)
        if name.rpartition(".")[2].startswith("_") and name != "pplr_audit.__version__"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_package_names_no_attack_and_no_defense() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in files("pplr_audit")
        for name, line in imported(path)
        if name.split(".")[1] in GUESTS
    ]
    assert not wrong, "\n".join(wrong)


CALLED_BY_LIBRARIES = {"get_seq_length": "transformers asks a cache", "ignore_aliases": "PyYAML asks a dumper"}
"""Methods that nothing of ours calls."""
CALLED_BY_DEFENSES = {"squared_norms": "to clip", "weighted_sum": "to make one gradient of those of the samples"}
"""Methods of the contract that defenses of third parties call, as those in tests/toys do."""
OPEN_DECORATORS = {"property", "cached_property", "staticmethod", "classmethod", "cache", "lru_cache", "contextmanager",
                   "dataclass", "abstractmethod", "runtime_checkable"}  # fmt: skip
"""Those that hand a function to nobody; a command or a validator is called by whoever it was registered with."""


def test_whatever_is_defined_is_used_by_more_than_tests() -> None:
    places, words = defaultdict(list), Counter[str]()
    for path in files("pplr_audit", "attacks", "defenses", "scenarios"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                over = {ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in node.decorator_list}
                if over <= OPEN_DECORATORS and not node.name.startswith("__"):
                    places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}")
    users = files("pplr_audit", "attacks", "defenses", "scenarios", "benchmarks")
    for path in (*users, *(ROOT / "pplr_audit").rglob("*.j2"), ROOT / "pyproject.toml"):
        words.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    unused = [each for name, found in places.items() if words[name] <= len(found) for each in found]
    elsewhere = CALLED_BY_LIBRARIES | CALLED_BY_DEFENSES
    assert [each for each in unused if each.rpartition(" ")[2] not in elsewhere] == []


def test_few_names_lie_directly_in_the_package() -> None:
    names = [
        path.name
        for path in (ROOT / "pplr_audit").iterdir()
        if not path.name.startswith(("__", "py.typed")) and not path.is_symlink()
    ]
    assert len(names) <= MOST_NAMES, sorted(names)


def test_every_room_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in files("pplr_audit", "attacks", "defenses")
        if path.name == "__init__.py" and not ast.get_docstring(parsed(path))
    ]
    assert not silent, silent


def test_files_and_functions_are_short_enough_to_read_in_one_go() -> None:
    long = []
    for path in files("pplr_audit", "attacks", "defenses", "tests", "benchmarks"):
        where = str(path.relative_to(ROOT))
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            long.append(f"{where}: {lines} lines")
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and f"{where}:{node.name}" not in LONG_FUNCTIONS
            ):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    long.append(f"{where}:{node.name}: {length} lines")
    assert not long, "\n".join(long)


def test_functions_take_few_arguments() -> None:
    """What travels together is one value, as `training.job.Job`; ``self`` does not count."""
    many = []
    for path in files("pplr_audit", "attacks", "defenses"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                place = f"{path.relative_to(ROOT)}:{node.name}"
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len(names) - (names[:1] in (["self"], ["cls"], ["ctx"]))
                if count > MOST_ARGUMENTS and place not in MANY_ARGUMENTS:
                    many.append(f"{place}: {count} arguments")
    assert not many, "\n".join(many)


def test_the_main_job_is_read_in_one_go() -> None:
    path = ROOT / "pplr_audit" / "pipeline.py"
    aside: set[int] = set()
    for node in ast.walk(parsed(path)):
        documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if documented or isinstance(node, ast.Import | ast.ImportFrom):
            aside |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = path.read_text(encoding="utf-8").splitlines()
    left = [line for number, line in enumerate(lines, 1) if line.strip() and number not in aside]
    assert len(left) <= LONGEST_PIPELINE, f"{len(left)} lines"


def test_docstrings_open_with_the_point() -> None:
    fragments, total = [], 0
    for path in files("pplr_audit", "attacks", "defenses", "scenarios"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    total += 1
                    if text.split()[0].strip("`.,:;") in FRAGMENTS:
                        fragments.append(f"{path.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert len(fragments) < 0.05 * total, f"{len(fragments)} of {total}:\n" + "\n".join(fragments)


def test_public_fields_and_constants_are_described_by_more_than_a_fragment() -> None:
    """The text behind a field counts as its docstring."""
    fragments = [
        f"{path.relative_to(ROOT)}:{text.lineno}: {text.value.value}"
        for path in files("pplr_audit", "attacks", "defenses")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Module | ast.ClassDef)
        for field, text in pairwise(node.body)
        if isinstance(field, ast.Assign | ast.AnnAssign) and isinstance(text, ast.Expr)
        if isinstance(text.value, ast.Constant) and str(text.value.value).split()[0].strip("`.,:;") in FRAGMENTS
    ]
    assert not fragments, "\n".join(fragments)


BRITISH = (
    "defence", "centralis", "standardis", "normalis", "minimis", "maximis", "initialis", "summaris", "recognis",
    "factoris", "analyse", "neighbour", "behaviour", "colour", "favour", "labelled ", "centred", "artefact",
)  # fmt: skip


@pytest.mark.parametrize("word", BRITISH)
def test_one_spelling(word: str) -> None:
    """American spelling, but where an old name is still accepted and said so."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files("pplr_audit", "attacks", "defenses", "tests", "benchmarks")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if word in line.lower() and "old name" not in line
    ]
    assert not found, found
