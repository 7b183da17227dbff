"""The house itself: what it runs in, what it declares, and which pages it keeps."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_what_a_shell_has_set_reaches_no_program_of_ours() -> None:
    odd = ["PYTHONUNBUFFERED", "PYTHONPATH", "OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "PPLR_AUDIT_CACHE", "LC_ALL"]
    kept = {"HOME": "/h o", "PATH": os.environ["PATH"], "CI": "true", "PIP_INDEX_URL": "https://x/", "no_proxy": "a,b"}
    done = subprocess.run(
        [ROOT / ".ci" / "alone", "ONE=1", "env", "-0"],
        env={**dict.fromkeys(odd, "1"), **kept, "LANG": "de_DE"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    got = dict(line.split("=", 1) for line in done.stdout.rstrip("\0").split("\0"))
    assert got == {**kept, "LANG": "C.UTF-8", "ONE": "1"}


@pytest.mark.parametrize("target", ["demo", "test", "schema"])
def test_all_that_make_runs_is_run_that_way(target: str) -> None:
    done = subprocess.run(["make", "-nB", target], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("touch ", "make:"))]
    assert len(lines) >= 4
    assert [line for line in lines if not line.startswith(".ci/alone ")] == []
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec .ci/alone make test"


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = {
    "scikit-learn": "sklearn",
    "pyyaml": "yaml",
    "markdown-it-py": "markdown_it",
    "pytrec-eval-terrier": "pytrec_eval",
}
"""Where the module is not called as the package is."""
TOOLS = {"pytest-xdist": ("Makefile", "-n 2"), "mypy": ("Makefile", "mypy"), "ruff": ("Makefile", "ruff"),
         "pre-commit": (".pre-commit-config.yaml", "repos:")}  # fmt: skip
"""What is run and not imported, and where."""


def declared(listed: list[str]) -> dict[str, str]:
    """Module to requirement, of libraries that are none of our own extras."""
    names = [Requirement(text).name for text in listed]
    return {MODULES.get(n.lower(), re.sub("[-.]", "_", n)): n for n in names if n != PROJECT["name"]}


def named(*folders: str) -> tuple[set[str], set[str]]:
    """Modules of others that are imported at any depth, and all strings, of which some name a module to be found."""
    imported, strings = set(), set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py") if path != Path(__file__)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module or "")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.add(node.value)
    ours = {"pplr_audit", "tests", *(path.stem for path in (ROOT / "benchmarks").glob("*.py"))}
    return {name.split(".")[0] for name in imported} - ours - set(sys.stdlib_module_names), strings


def test_what_is_declared_is_imported_and_what_is_imported_is_declared() -> None:
    needed, test = declared(PROJECT["dependencies"]), declared(EXTRAS["test"])
    imported, strings = named("pplr_audit")
    optional = {m for name, listed in EXTRAS.items() if name not in ("test", "dev") for m in declared(listed)}
    assert set(needed) == imported - optional
    assert {module for module in optional if module not in imported | strings} == set()
    told = {module: name for module, name in test.items() if name not in TOOLS and not name.startswith("types-")}
    by_tests, looked_for = named("tests")
    by_benchmarks, _ = named("benchmarks")
    assert by_tests - set(needed) - set(told) == set()
    assert {module for module in told if module not in by_tests | looked_for} == set()
    assert by_benchmarks - set(needed) - set(told) == set()


def test_tools_of_the_tests_are_run_and_stubs_are_of_what_is_imported() -> None:
    for module, name in declared(EXTRAS["test"]).items():
        if name in TOOLS:
            file, text = TOOLS[name]
            assert text in (ROOT / file).read_text()
        elif name.startswith("types-"):
            assert declared([name.removeprefix("types-")]).keys() <= named("pplr_audit")[0], module


FLOWER = {"typer": ("0.13.0", "0.21.0"), "rich": ("14.0.0", "15.0.0"), "click": ("8.0.0", "9.0.0"),
          "fastapi": ("0.138.0", "0.139.0"), "starlette": ("1.3.1", "1.4.0")}  # fmt: skip
"""From and below, in the metadata of flwr 1.41.0: the federation will need it beside everything else."""


def test_what_is_declared_stays_within_the_bounds_of_flower() -> None:
    for requirement in map(Requirement, PROJECT["dependencies"]):
        if requirement.name in ("typer", "rich", "click", "starlette", "fastapi"):
            low, high = FLOWER[requirement.name]
            assert not requirement.specifier.contains(high), requirement
            assert all(Version(each.version) >= Version(low) for each in requirement.specifier if each.operator == ">=")


FINDINGS = sorted((ROOT / "findings").glob("*"))


def test_findings_keep_their_form() -> None:
    scripts = [path for path in FINDINGS if path.name != "README.md"]
    assert scripts
    for path in scripts:
        text = path.read_text()
        assert path.suffix == ".sh", path
        assert os.access(path, os.X_OK), path
        for field in ("Finding", "Versions", "Behavior", "Seen"):
            assert len(re.findall(f"^# {field}: .+$", text, re.M)) == 1, (path, field)
        assert "mktemp -d" in text, path
        assert "pplr" not in text, path
        told = re.search("^# Versions: (.+)$", text, re.M)
        assert told is not None
        for library, version in (each.split() for each in told[1].split(", ")):
            assert f"{library}=={version}" in text, (path, library)


PAGES = [
    page
    for folder in (".", "docs", "findings", "benchmarks", "benchmarks/results")
    for page in (ROOT / folder).glob("*.md")
]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get where it is shown."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_pages_show_only_import_paths_that_are_public() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Public import paths")[1].split("\n## ")[0]
    public = re.findall(r"`(pplr_audit(?:\.\w+)+)`", table)
    assert len(public) <= 12
    for module in public:
        assert find_spec(module), module
    shown = {name for page in PAGES for name in re.findall(r"(?:from|import) (pplr_audit[\w.]*)", page.read_text())}
    assert shown
    assert {name for name in shown if not f"{name}.".startswith(tuple(f"{each}." for each in public))} == set()


def test_the_overview_links_every_page_of_results() -> None:
    overview = ROOT / "benchmarks" / "results" / "overview.md"
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", overview.read_text()))
    assert {page.name for page in overview.parent.glob("*.md")} - {overview.name} == linked
