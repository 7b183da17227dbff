"""What no front that the adversary knows can have made is refused by every attack that reads hidden states."""

from typing import Any

import pytest
import torch

from pplr_audit.attacks.activation.embedding_match import EmbeddingMatch
from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.attacks.active.sdar import Sdar
from pplr_audit.threat_model.attack import Attack, Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.outcomes import NotApplicable
from pplr_audit.threat_model.view import Record, View

WIDE, MOST = 8, 5


class Short:
    """Prompts of a few tokens, for attacks that end before they build one."""

    max_tokens = MOST


@pytest.mark.parametrize(
    "attack", [Ridge(), Inverter(), PrefixSearch(), EmbeddingMatch(), Sdar()], ids=lambda a: a.name
)
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3, WIDE + 1), "row 7 is 9 wide, the known model 8"),
        (torch.zeros(MOST + 1, WIDE), r"row 7 has 6 positions, more than model.max_tokens \(5\)"),
        (torch.full((3, WIDE), float("inf")), "row 7 is not finite"),
    ],
)
def test_what_the_known_front_cannot_have_made_is_refused(attack: Attack, tensor: Any, message: str) -> None:
    nothing: Any = None
    short: Any = Short()
    knowledge = Knowledge("front", short, torch.zeros(4, WIDE), nothing, {}, (1,), 3, 3)
    view = View("server", Channel.FRONT_ACTIVATIONS, 1, None, "none", (Record(7, "client-0", 1, 0, tensor),))
    with pytest.raises(NotApplicable, match=message):
        attack.run(view, knowledge, Budget(60))
