"""The defenses in docs/extending.md are those that the tests install, and each is short."""

import re
from pathlib import Path

import pytest

from tests.toys import FOLDER

PAGE = (Path(__file__).parents[3] / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("name", ["scale", "noise", "sums", "clip"])
def test_a_defense_on_the_page_is_the_one_that_runs_and_has_under_forty_lines(name: str) -> None:
    code = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert code in CODE
    assert len(code.splitlines()) < 40
    assert f'{name} = "my_package.{name}:{name.capitalize()}"' in PAGE


def test_every_hook_is_on_the_page() -> None:
    from pplr_audit.threat_model import Defense

    hooks = [name for name, value in vars(Defense).items() if callable(value) and not name.startswith("_")]
    assert [hook for hook in hooks if f"`{hook}`" not in PAGE] == []
