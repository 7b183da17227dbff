"""All that crosses when trained models serve: requests, what is generated for them, a catalogue that is encoded."""

from collections.abc import Callable, Mapping, Sequence

from pplr_audit.audit.replay.catalogue import Keep, received_titles, served_titles
from pplr_audit.audit.replay.generated import Recommended, generated_records
from pplr_audit.audit.replay.records import SERVED, received_records, serving_records
from pplr_audit.data.prompts import Prompt
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundState


def record_serving(
    job: Job, state: RoundState, requests: Mapping[str, Sequence[tuple[int, Prompt]]],
    answers: Callable[[], Recommended], layers: Sequence[int], keep: Keep,
) -> None:  # fmt: skip
    """Record h_l at each of ``layers``; where a defense changes what crosses, at the cut that ran, as it was received.

    What is generated is not recorded under such a defense.

    Args:
        requests: per client, opaque number and prompt of each request.
        answers: tells what is answered to the victims.
    """
    whole, parts, federation = job.model.whole, job.model.parts, job.federation
    if any(map(federation.guards.on, SERVED)):
        received_records(federation, parts, state, requests, keep)
        received_titles(federation, parts.front, state.round, requests, keep)
        return
    serving_records(whole, state, requests, layers, keep)
    generated_records(whole, state, answers(), layers, keep)
    served_titles(whole, state, requests, layers, keep)
