"""Questions: what an attack must answer about each row of its view. An attack declares one as its `secret`."""

from collections.abc import Mapping
from dataclasses import dataclass

from pplr_audit.threat_model.adversaries import Secret


@dataclass(frozen=True)
class Question:
    """One question, apart from the observation that it is answered from and from the truth that scores the answer."""

    asks: str
    on_reserve: bool = False
    """True if an answer from updates is also compared with what the same attack answers from updates that the same
    clients would send if they trained on users of the reserve: what any such update gives away is no leak of theirs."""


QUESTIONS: Mapping[Secret, Question] = {
    "history": Question("which items this user had before, slot by slot"),
    "label": Question("which item this sequence was trained to answer with"),
    "membership": Question("was this user trained on", on_reserve=True),
    "attribute": Question("which value of an attribute this user has"),
    "linkage": Question("which two sequences are of one user"),
    "items": Question("which items this client, or this user where each is a client, trained on", on_reserve=True),
    "targets": Question("which items this client's samples were trained to answer with", on_reserve=True),
    "owner": Question("which client's update this is"),
    "recommendation": Question("which item this user was recommended"),
}
