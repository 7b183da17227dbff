"""The options ``--attack`` and ``--cut`` of ``pplr-audit attack``."""

import re
from collections.abc import Sequence

from pplr_audit.audit.extension import Extension, distinct_settings
from pplr_audit.errors import InputError, visible
from pplr_audit.scenario import plugins
from pplr_audit.scenario.schema import Cuts, Named
from pplr_audit.scenario.yaml_reader import parse

_CUT = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-9]{1,9})\s*")


def from_options(attacks: Sequence[str], cuts: Sequence[str]) -> Extension | None:
    """Parse ``--attack NAME`` or ``--attack 'NAME={setting: value}'`` and ``--cut FRONT,BACK`` (or ``all``).

    Raises:
        InputError: names the option, what is wrong, and what is accepted.
    """
    if not attacks and not cuts:
        return None
    return Extension(attacks=distinct_settings(map(_named, attacks)) or None, cuts=_cuts(cuts) if cuts else None)


def _named(text: str) -> Named:
    shown = f"--attack {visible(text)}"
    name, equals, settings = text.partition("=")
    name = name.strip()
    refused = plugins.refusal("attacks", name, shown)
    if refused is not None:
        raise InputError(refused)
    if not equals:
        return name
    values = parse(settings, shown).values
    if not isinstance(values, dict):
        raise InputError(
            f"{shown}: not of the form NAME={{setting: value}} (example: --attack 'ridge={{prompts: 64}}')"
        )
    return {name: values} if values else name


def _cuts(texts: Sequence[str]) -> Cuts:
    if [text.strip() for text in texts] == ["all"]:
        return "all"
    pairs = []
    for text in texts:
        match = _CUT.fullmatch(text)
        if match is None:
            raise InputError(
                f"--cut {visible(text)}: not of the form FRONT,BACK (example: --cut 2,1 for two blocks in front and "
                "one behind; or a single --cut all)"
            )
        pairs.append((int(match[1]), int(match[2])))
    return distinct_settings(pairs)
