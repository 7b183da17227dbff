"""Reading the next item from the gradient that comes back over the cut: RecFormer on MiniLM, catalogue of amazon-games.

One client's local training: some steps on its own samples, then one step more on the victims, of which h_{L-m} goes
down and dLoss/dh_{L-m} comes back. Rows: the exact model at every m (as in the first step of a round), then at m = 1 a
model that is so many steps old, the public weights alone, dropout that the server cannot repeat, in-batch
negatives (a loss over the batch's own targets, which the server does not know), rounding to bfloat16, and noise. Hits
are over title classes. The synthetic market and a small random BERT stand in for both with ``--quick``.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from client import BATCH, Client, prepared
from measuring import arguments, machine, table, write
from torch import Tensor
from torch.nn.functional import cross_entropy

from pplr_audit.attacks.gradient.label_match import LabelMatch
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.truth.label import LabelTruth
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.recommenders.recformer import ITEMS, RecFormer
from pplr_audit.models.taps import tap
from pplr_audit.threat_model.attack import Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View

STEPS, VICTIMS = 50, 96
GOAL = 0.98
"""hit@1 at m = 1, undefended."""


@dataclass(frozen=True)
class Case:
    """What is other than in the plain case: the exact model, no dropout, full softmax, float32."""

    name: str
    back: int = 1
    behind: int = 0
    """Steps of local training that the server's copy has not seen; all of them with ``public``."""
    public: bool = False
    dropout: float = 0.0
    in_batch: bool = False
    rounded: bool = False
    noise: float = 0.0
    """Standard deviation, in units of the gradient's own."""
    share: float = 1.0
    """Of the victims."""


def cases(layers: int) -> list[Case]:
    return [
        *(Case(f"exact model, m = {back}", back=back) for back in (0, 1)),
        *(Case(f"model {steps} steps old", behind=steps) for steps in (1, 10, STEPS)),
        Case("public weights", public=True), Case("dropout .1", dropout=0.1),
        Case("in-batch negatives", in_batch=True), Case("bfloat16 on the wire", rounded=True),
        *(Case(f"noise of {noise:g} sd", noise=noise) for noise in (0.1, 1.0, 10.0, 100.0)),
        *(Case(f"exact model, m = {back}", back=back, share=1 / 3) for back in range(2, layers)),
    ]  # fmt: skip


class InBatch(RecFormer):
    """The same, with the batch's own targets as the only negatives."""

    def loss(self, model: Any, prompts: Sequence[Prompt], encoding: Mapping[str, Tensor]) -> Tensor:
        places = torch.tensor([prompt.target for prompt in prompts])
        return cross_entropy(
            self.points(model, prompts) / self._temperature @ encoding[ITEMS][places].T, torch.arange(len(prompts))
        )


def crossed(client: Client, task: RecFormer, victims: Sequence[Prompt], case: Case) -> tuple[Record, ...]:
    """One step over the victims: what came back, and beside it what had gone down."""
    network, records = client.model.whole.model, []
    generator = torch.Generator().manual_seed(0)
    seen: dict[str, Tensor] = {}
    with (
        client.dropping(case.dropout),
        tap(
            [client.place(client.model.layers - case.back)],
            lambda _, down: seen.update(down=down), lambda _, up: seen.update(up=up),
        ),
    ):  # fmt: skip
        for start in range(0, len(victims), BATCH):
            part = victims[start : start + BATCH]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(start)
                task.loss(network, part, task.base_encoding).backward()
            network.zero_grad()
            for row, prompt in enumerate(part):
                down, up = (seen[way][row, : len(prompt)].clone() for way in ("down", "up"))
                up += case.noise * up.std() * torch.randn(up.shape, generator=generator)
                if case.rounded:
                    down, up = down.bfloat16().float(), up.bfloat16().float()
                beside = {Channel.TRUNK_ACTIVATIONS: down}
                records.append(Record(start + row, "client-0", 1, 0, up, len(part), beside))
    return tuple(records)


def main() -> None:
    asked = arguments(__doc__ or "", 1)
    at = machine()
    with prepared("label-match", quick=asked.quick) as client:
        measure(client, asked, at)


def measure(client: Client, asked: Any, at: Mapping[str, Any]) -> None:
    model = client.model
    steps, count = (12, 16) if asked.quick else (STEPS, VICTIMS)
    victims, own = client.prompts[:count], client.prompts[count:]
    adapters = client.trained(own, steps, [steps - case.behind for case in cases(model.layers)])
    in_batch = InBatch(model.whole.model, model.prompts, client.scenario.model.recformer, rounds=1)
    items, classes, popular = len(model.prompts.titles), model.prompts.title_classes(), client.popularity(own)
    base, encoding = KnownModel(model.whole, None), model.task.base_encoding
    lines, figures = [], []
    for case in cases(model.layers):
        model.whole.set(adapters[steps])
        task, part = in_batch if case.in_batch else model.task, victims[: round(case.share * count)]
        records = crossed(client, task, part, case)  # type: ignore[arg-type]
        behind = max((age for age in adapters if age <= steps - case.behind), default=0)
        known = {} if case.public else {("client-0", 1): KnownModel(model.whole, adapters[behind], encoding)}
        level = "base" if case.public else "front"
        knowledge = Knowledge(
            level, model.prompts, model.whole.embeddings, base, known, (), client.scenario.data.history, model.layers
        )
        view = View("server", Channel.BACK_GRADIENTS, None, case.back, "none", records)
        started = time.perf_counter()
        guess = LabelMatch().run(view, knowledge, Budget(1e6))
        seconds = (time.perf_counter() - started) / len(part)
        targets = {row: prompt.target for row, prompt in enumerate(part)}
        truth = LabelTruth({row: row for row in targets}, targets, classes, popular)
        scores = {score.metric: score for score in truth.score(guess, seed=0)}
        hit = scores["label_hit@1"]
        estimates = {name: score.estimate for name, score in scores.items()}
        left = guess.facts["median_distance"]
        figures.append({"case": case.name, "scores": estimates, "seconds": seconds, "median_distance": left})
        lines.append([
            case.name, f"{hit.estimate.value:.3f} [{hit.estimate.low:.3f}, {hit.estimate.high:.3f}]",
            f"{estimates['label_hit@10'].value:.3f}", f"{estimates['mrr'].value:.3f}", f"{hit.baseline:.3f}",
            f"{left:.1e}", f"{seconds:.2f}", str(len(part)),
        ])  # fmt: skip
        print(lines[-1], flush=True)
    at_one = figures[1]["scores"]["label_hit@1"].value
    said = (
        f"{items:,} items with {len(set(classes.tolist())):,} different titles. The client trained {steps} steps of"
        f" {BATCH} samples before"
    )
    reached = "met" if at_one >= GOAL else "not met"
    head = ["case (m = 1)", "hit@1 (95 %)", "hit@10", "MRR", "popularity", "median distance", "s/victim", "victims"]
    text = f"{said}. Goal: hit@1 at m = 1 at least {GOAL}: {reached}.\n\n" + table(head, lines)
    write("label_match", "The next item from the return gradient", text, {"cases": figures}, at, asked.results)


if __name__ == "__main__":
    main()
