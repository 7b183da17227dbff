"""Whoever looks on while clients train, so that no round has to run a second time for what crossed in it."""

from typing import Any, Protocol

from pplr_audit.training.client import Client
from pplr_audit.training.link import Link


class Onlooker(Protocol):
    """Looks on while clients train, here or in a fork; it changes no bit of what they do."""

    def train(self, client: Client, link: Link, round_: int) -> tuple[float, Any]:
        """Train a client's round; return its loss, and what was seen."""
        ...

    def keep(self, round_: int, seen: Any) -> None:
        """Take what was seen of a client, in the order in which clients train."""
        ...


class NoOnlooker:
    """Nobody looks on."""

    def train(self, client: Client, link: Link, round_: int) -> tuple[float, Any]:
        return client.train_round(link, round_), None

    def keep(self, round_: int, seen: Any) -> None:
        """Nothing was seen."""
