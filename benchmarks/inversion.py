"""Reading histories from hidden states: RecFormer on MiniLM with amazon-games, or a decoder with ml-100k (``--kind``).

One client's local training: some steps on its own samples, then one step more on the victims, of which h_l is looked
at at every front (and, of the encoder, what leaves the last block). No attacker has seen a victim's text: inverters
learn on the public template over random titles. First the exact model at every layer, then at the deepest front a model
that is so many steps old, the public weights alone, dropout that the server cannot repeat, rounding to bfloat16, and
noise. Token accuracy and hits are of titles only. The synthetic market and a small random model stand in for both with
``--quick``.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from client import BATCH, Client, prepared
from measuring import arguments, machine, table, write
from torch import Tensor

from pplr_audit.attacks.activation.inverter import Inverter
from pplr_audit.attacks.activation.prefix_search import PrefixSearch
from pplr_audit.attacks.activation.ridge import Ridge
from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.audit.truth.history import HistoryTruth
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.lora import Adapter
from pplr_audit.models.taps import tap
from pplr_audit.threat_model.attack import Attack, Budget
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.knowledge import Knowledge
from pplr_audit.threat_model.view import Record, View

STEPS, VICTIMS, PROMPTS, HELD_OUT = 50, 96, 512, 32
SECONDS = 600.0, 60.0
"""That an attack has at a layer, of the exact model and otherwise; refinement uses them up where nothing fits."""
GOALS = {"encoder": 0.97, "decoder": 1.0}
"""Token accuracy at the last layer, undefended."""
METRICS = ("token_accuracy", "item_hit@1", "item_hit@10", "exact_history")


@dataclass(frozen=True)
class Case:
    """What is other than in the plain case: the exact model, no dropout, float32."""

    name: str
    behind: int = 0
    """Steps of local training that the server's copy has not seen."""
    public: bool = False
    dropout: float = 0.0
    rounded: bool = False
    noise: float = 0.0
    """Standard deviation, in units of the states' own."""


PLAIN = Case("exact model")
OTHERS = (
    Case("model 1 step old", behind=1), Case("model 10 steps old", behind=10),
    Case(f"public weights, {STEPS} steps old", public=True),
    Case("dropout .1", dropout=0.1), Case("bfloat16 on the wire", rounded=True),
    *(Case(f"noise of {noise:g} sd", noise=noise) for noise in (0.1, 1.0, 10.0)),
)  # fmt: skip


def attacks(quick: bool) -> Mapping[str, Attack]:
    prompts, held_out = (48, 8) if quick else (PROMPTS, HELD_OUT)
    return {
        "ridge": Ridge(prompts, held_out),
        "inverter: attention": Inverter("attention", prompts=prompts, held_out=held_out),
        "prefix_search": PrefixSearch(prompts=prompts, held_out=held_out),
    }


def crossed(
    client: Client, victims: Sequence[Prompt], layers: Sequence[int], case: Case
) -> dict[int, tuple[Record, ...]]:  # fmt: skip
    """h of each of ``layers`` in one step over the victims."""
    model, generator = client.model, torch.Generator().manual_seed(0)
    records: dict[int, list[Record]] = {layer: [] for layer in layers}
    seen: dict[int, Tensor] = {}
    with client.dropping(case.dropout), tap([client.place(layer) for layer in layers], seen.__setitem__):
        for start in range(0, len(victims), BATCH):
            part = victims[start : start + BATCH]
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(start)
                model.task.loss(model.whole.model, part, model.task.base_encoding)
            for layer in layers:
                for row, prompt in enumerate(part):
                    hidden = seen[layer][row, : len(prompt)].clone()
                    hidden += case.noise * hidden.std() * torch.randn(hidden.shape, generator=generator)
                    hidden = hidden.bfloat16().float() if case.rounded else hidden
                    records[layer].append(Record(start + row, "client-0", 1, 0, hidden, len(part)))
    return {layer: tuple(own) for layer, own in records.items()}


def main() -> None:
    asked = arguments(__doc__ or "", 1, kind=("encoder", "decoder"))
    at = machine()
    with prepared("inversion", quick=asked.quick, kind=asked.kind) as client:
        measure(client, asked, at)


def measure(client: Client, asked: Any, at: Mapping[str, Any]) -> None:
    model = client.model
    steps, count = (12, 12) if asked.quick else (STEPS, VICTIMS)
    victims, own = client.prompts[:count], client.prompts[count:]
    adapters = client.trained(own, steps, [steps - case.behind for case in OTHERS])
    classes, popular, titles = model.prompts.title_classes(), client.popularity(own), model.prompts
    words = [titles.titles[item][titles.content[item] == 1] for item in range(len(titles.titles))]
    truth = HistoryTruth({row: row for row in range(count)}, dict(enumerate(victims)), classes, popular, words)
    everywhere, deepest = tuple(range(model.layers + (client.kind == "encoder"))), model.layers - 1
    figures: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    for case, layers in ((PLAIN, everywhere), *((case, (deepest,)) for case in OTHERS)):
        model.whole.set(adapters[steps])
        records = crossed(client, victims, layers, case)
        for name, layer, guess, seconds in answers(client, adapters, records, case, layers, asked.quick):
            scores = {score.metric: score for score in truth.score(guess, seed=0)}
            estimates = {metric: scores[metric].estimate for metric in METRICS}
            figures.append(
                {"case": case.name, "layer": layer, "attack": name, "scores": estimates, "seconds": seconds,
                 "baselines": {metric: scores[metric].baseline for metric in METRICS}}
            )  # fmt: skip
            first = estimates["token_accuracy"]
            rest = [f"{estimates[metric].value:.3f}" for metric in METRICS[1:]]
            lines.append(
                [case.name, str(layer), name, f"{first.value:.4f} [{first.low:.4f}, {first.high:.4f}]", *rest,
                 f"{seconds:.0f}"]
            )  # fmt: skip
            print(lines[-1], flush=True)
        report(client, figures, lines, steps, count, at, asked)  # after each case, as it takes long


def answers(
    client: Client, adapters: Mapping[int, Adapter], records: Mapping[int, tuple[Record, ...]], case: Case,
    layers: tuple[int, ...], quick: bool,
) -> Iterator[tuple[str, int, Any, float]]:  # fmt: skip
    """What each attack answers at each layer, and in how many seconds, learning included."""
    model, steps = client.model, max(adapters)
    behind = max(age for age in adapters if age <= max(steps - case.behind, 0))
    base = KnownModel(model.whole, None)
    copies = (
        {} if case.public else {("client-0", 1): KnownModel(model.whole, adapters[behind], model.task.base_encoding)}
    )
    knowledge = Knowledge(
        "base" if case.public else "front", model.prompts, model.whole.embeddings, base, copies, layers,
        client.scenario.data.history, model.layers,
    )  # fmt: skip
    for name, attack in attacks(quick).items():
        if isinstance(attack, Inverter) and case != PLAIN:
            continue
        # Learning a network for each layer takes long, and it is asked for where ridge is weakest.
        for layer in layers[-2:] if isinstance(attack, Inverter) else layers:
            view = View("server", Channel.FRONT_ACTIVATIONS, layer, None, "none", records[layer])
            started = time.perf_counter()
            guess = attack.run(view, knowledge, Budget(SECONDS[case != PLAIN]))
            yield name, layer, guess, time.perf_counter() - started


def report(
    client: Client, figures: Sequence[Mapping[str, Any]], lines: list[list[str]], steps: int, count: int,
    at: Mapping[str, Any], asked: Any,
) -> None:  # fmt: skip
    layers = client.model.layers
    own = [f for f in figures if f["case"] == PLAIN.name]
    by_layer: dict[int, list[float]] = {}
    for figure in own if client.kind == "decoder" else [f for f in own if f["layer"] == layers]:
        by_layer.setdefault(figure["layer"], []).append(figure["scores"]["token_accuracy"].value)
    reached, wanted = min(map(max, by_layer.values())), GOALS[client.kind]
    where = (
        f"Layer {layers} is the output of the last block. Goal: token accuracy at the last layer at least {wanted}"
        if client.kind == "encoder"
        else "Goal: every title token at every front"
    )
    text = (
        f"{len(client.model.prompts.titles):,} items and {count} victims. The client trained {steps} steps of {BATCH}"
        " samples before. `ridge` fits all layers when it attacks the first one. Time limit of an attack:"
        f" {SECONDS[0]:g} s at a layer of the exact model, {SECONDS[1]:g} s in the other cases. {where}: the best"
        f" attack reaches {reached:.4f}, {'met' if reached >= wanted else 'not met'}.\n\n"
    )
    head = ["case", "layer", "attack", "token accuracy (95 %)", "item_hit@1", "item_hit@10", "exact history", "s"]
    write(
        f"{client.kind}_inversion", f"Reading histories from hidden states: {client.kind}", text + table(head, lines),
        {"rows": figures}, at, asked.results,
    )  # fmt: skip


if __name__ == "__main__":
    main()
