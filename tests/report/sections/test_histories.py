"""Examples: which attack with which settings they are of, and items of updates beside those that are true."""

from typing import Any

from pplr_audit.report.blocks.content import Fold, History
from pplr_audit.report.formats.html import render_html
from pplr_audit.report.sections.histories import SHOWN, histories
from pplr_audit.runs.documents import validate_evidence

Json = dict[str, Any]


def example(secret: str, **changes: Any) -> Json:
    slots = [
        {"truth": "Solar Rocket", "guess": "Solar Rocket", "hit": True},
        {"truth": "<i>Hidden</i> Unicorn", "guess": "Golden Spell", "hit": False},
    ]
    given: Json = {
        "attack": "lora_span", "settings": {}, "channel": "client_update", "cut": {"front": 1, "back": 1},
        "client": "c2", "row": 3, "secret": secret, "knowledge": "front", "slots": slots, "truth_text": "",
        "guess_text": "",
    }  # fmt: skip
    return {**given, **changes}


def shown(evidence: Json) -> list[History]:
    return [block for block in histories(evidence).blocks if isinstance(block, History)]


def test_items_of_an_update_stand_beside_those_ranked_first_and_markup_is_text(findings: Json, evidence: Json) -> None:
    evidence["examples"] = [example("items"), example("targets", attack="update_label")]
    validate_evidence(evidence)
    items, targets = shown(evidence)
    assert items.title == "lora_span on client_update at k=1, m=1, knowing front: items of c2"
    assert items.score == "1 of the 2 ranked first are true"
    assert items.columns == ("rank", "true items")
    assert [c.hit for c in items.comparisons] == [True, False]
    assert [word.shared for word in items.comparisons[1].truth] == [False, False]
    assert targets.title.endswith("next items of c2")
    page = render_html(findings, evidence)
    assert "<i>Hidden</i>" not in page
    assert "&lt;i&gt;Hidden&lt;/i&gt;" in page
    bare = render_html(findings, evidence, redact=True)
    assert "Rocket" not in bare
    assert "1 of the 2 ranked first are true" in bare


def test_examples_of_one_attack_with_two_settings_say_which_they_are_of(evidence: Json) -> None:
    evidence["examples"] = [
        example("history", attack="ridge", channel="front_activations", settings={"prompts": n}) for n in (64, 128)
    ]
    first, second = (each.title for each in shown(evidence))
    assert first.startswith("ridge (prompts=64) on front_activations")
    assert second.startswith("ridge (prompts=128) on front_activations")


def test_many_examples_of_updates_are_folded_and_leave_room_for_histories(evidence: Json) -> None:
    evidence["examples"] += [example("items", cut={"front": k, "back": 1}) for k in range(SHOWN + 2)]
    assert sum("items of" in each.title for each in shown(evidence)) == SHOWN
    assert sum("user row" in each.title for each in shown(evidence)) == 3
    (fold,) = [block for block in histories(evidence).blocks if isinstance(block, Fold)]
    assert fold.title == "More examples (2)"
