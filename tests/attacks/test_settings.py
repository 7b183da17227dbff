"""Settings of attacks: what is no whole number where one is asked for is refused before anything is trained."""

import inspect
from importlib.metadata import entry_points
from typing import Any

import pytest

from pplr_audit.errors import InputError

ATTACKS = {point.name: point.load() for point in entry_points(group="pplr_audit.attacks")}
COUNTS = [
    (name, setting)
    for name, attack in sorted(ATTACKS.items())
    for setting, parameter in inspect.signature(attack).parameters.items()
    if isinstance(parameter.default, int) and not isinstance(parameter.default, bool)
]


@pytest.mark.parametrize("value", ["a", True, 1.5, float("nan"), -1, None, []], ids=str)
@pytest.mark.parametrize(("name", "setting"), COUNTS)
def test_what_is_no_whole_number_is_refused(name: str, setting: str, value: Any) -> None:
    others = {"name": "gender"} if "attribute" in name else {}
    with pytest.raises(InputError, match=rf"\w+: {setting} is .* \(accepted: "):
        ATTACKS[name](**others, **{setting: value})
