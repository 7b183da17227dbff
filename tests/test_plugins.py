"""Plugins are found by entry point and described without being imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pplr_audit import plugins
from pplr_audit.errors import InputError

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
KINDS: tuple[plugins.Kind, ...] = ("attacks", "defenses", "strategies", "readers")


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_of_ours_is_installed_described_and_loads(kind: plugins.Kind) -> None:
    ours = PROJECT["entry-points"][f"pplr_audit.{kind}"]
    assert set(ours) <= set(plugins.names(kind)), "install the package again: pip install -e ."
    for name in ours:
        assert plugins.describe(kind)[name], f"{name}: the first line of the module's docstring describes it"
        assert plugins.load(kind, name).__module__ == ours[name].partition(":")[0]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known() -> None:
    with pytest.raises(InputError, match=r"strategies: unknown name 'fedavgg'; did you mean 'fedavg'\?"):
        plugins.load("strategies", "fedavgg")


def test_describing_imports_no_plugin() -> None:
    code = (
        "import sys; from pplr_audit import plugins\n"
        f"for kind in {KINDS}: plugins.describe(kind)\n"
        "assert not [name for name in sys.modules if name.startswith('torch')]\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
