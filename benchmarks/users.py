"""Memory by the number of users: data, clients, samples, the plan of a round, and ranking for all of them.

Two processes do the same with few and with many synthetic users of ten items each; the slope of the peak between them
is what a user costs, whatever the libraries take. No language model is run: the clients are the real ones with nothing
to train, and RecFormer ranks by random vectors instead of encoded prompts, all of which are built.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from large_data import many_users
from measuring import arguments, goal, goal_text, in_child, machine, table, write
from torch import Tensor
from torch.nn.functional import normalize

from pplr_audit import scenario
from pplr_audit.data.population import populate
from pplr_audit.data.prompts import Pieces, Prompt, Prompts, ragged
from pplr_audit.data.samples import training_samples
from pplr_audit.data.split import split
from pplr_audit.models.recommenders.recformer import ITEMS, RecFormer
from pplr_audit.models.recommenders.task import CatalogueEncoding, Tally
from pplr_audit.training.client import Client, ClientPart, Common
from pplr_audit.training.strategies.protocol import Local
from pplr_audit.training.utility.evaluate import recommended, tested

BYTES_PER_USER = 2_000
USERS, FEW, ITEM_COUNT, HIDDEN, HISTORY = 1_000_000, 100_000, 1_000, 16, 5
TRAINING = scenario.Training(batch_size=64)
CHILD = "--in-the-child"


class RandomPoints(RecFormer):
    """RecFormer whose encoder answers at random."""

    def __init__(self, items: int) -> None:
        generator = np.random.default_rng(0)
        texts = ragged([[5] * int(generator.integers(3, 12)) for _ in range(items)])
        pieces = Pieces(*(np.full(length, 6) for length in (3, 2, 1, 0)), opening=2)
        tokenizer = SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=0)
        content = np.ones(len(texts.values), dtype=bool)
        self.prompts = Prompts(tokenizer, pieces, texts, content, max_tokens=128, history=HISTORY, newest_first=True)
        self._temperature = 0.05
        self._draw = torch.Generator().manual_seed(0)
        self.base_encoding = {ITEMS: self._points(items)}

    def _points(self, count: int) -> Tensor:
        return normalize(torch.randn(count, HIDDEN, generator=self._draw), dim=1)

    def encode(self, model: Any, prompts: Sequence[Prompt]) -> Tensor:
        return self._points(len(prompts))

    def table(self, model: Any, encoding: CatalogueEncoding) -> Tensor:
        return encoding[ITEMS]


class NoModel:
    """Serves, without a model."""

    def __init__(self, task: RandomPoints) -> None:
        self.encoding, self.tally = task.base_encoding, Tally()

    @contextmanager
    def model(self, *_: Any, **__: Any) -> Iterator[None]:
        yield None


def in_the_child(users: int) -> None:
    """Peak so far and seconds after each step, as JSON."""
    found: dict[str, dict[str, float]] = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        found[name] = {"peak": peak, "seconds": time.perf_counter() - began}

    lap("start")
    data = scenario.Data(audit_users=users // 10, history=HISTORY)
    dataset = many_users(users, ITEM_COUNT)
    parts = split(dataset, data.split)
    lap("data")
    population = populate(dataset, parts, data, 0)
    lap("clients and coins")
    task = RandomPoints(ITEM_COUNT)
    part = ClientPart(None, None, {}, cast(Any, None))
    common = Common(task, part, {}, TRAINING, 0, Local())
    steps = 0
    clients = []
    for number, name in enumerate(population.clients):
        mine = np.flatnonzero((population.client_of == number) & (population.member == 1))
        samples = training_samples(parts, mine, data.history, data.samples)
        clients.append(Client(name, samples, common))
    for client in clients:
        client.positions(1)
        steps += len(client.plan(1))
    lap("samples and plan")
    popularity, ranked = np.ones(ITEM_COUNT), 0
    for number in range(len(clients)):
        own = tested(parts, np.flatnonzero(population.client_of == number))
        ranking = recommended(NoModel(task), task, parts, own, history=HISTORY, popularity=popularity)
        ranked += len(ranking.metrics["recall@10"])
    lap("ranking")
    print(json.dumps({"laps": found, "steps": steps, "ranked": ranked}))


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=1)
    at, (few, many) = machine(), (2_000, 6_000) if chosen.quick else (FEW, USERS)
    less, more = in_child(__file__, CHILD, users=few), in_child(__file__, CHILD, users=many)
    slope = {
        lap: (more["laps"][lap]["peak"] - less["laps"][lap]["peak"]) / (many - few) for lap in more["laps"]
    }  # fmt: skip
    lines = [
        [f"up to {lap}", f"{less['laps'][lap]['peak'] / 1e9:.2f} GB", f"{more['laps'][lap]['peak'] / 1e9:.2f} GB",
         f"{more['laps'][lap]['seconds']:.0f} s", f"{value:,.0f}", ""]
        for lap, value in slope.items()
    ]  # fmt: skip
    value = slope["ranking"]
    lines[-1][-1] = goal_text(value, BYTES_PER_USER)
    figures = {
        "users": {"few": few, "many": many}, "few": less, "many": more, "bytes_per_user": slope,
        "goal": goal(value, BYTES_PER_USER),
    }  # fmt: skip
    head = ["peak memory", f"{few:,} users", f"{many:,} users", "seconds", "bytes for each user", "goal"]
    text = f"{ITEM_COUNT:,} items, ten for each user; {more['ranked']:,} users ranked, {more['steps']:,} steps planned."
    write("users", "Memory by the number of users", f"{text}\n\n{table(head, lines)}", figures, at, chosen.results)


if __name__ == "__main__":
    if CHILD in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument(CHILD, action="store_true", dest="child")
        parser.add_argument("--users", type=int)
        in_the_child(parser.parse_args().users)
    else:
        main()
