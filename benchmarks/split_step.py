"""One training step of a client over the in-process link, beside the same step uncut and a plain peft loop.

A step is forward, loss, backward and optimizer, on the server's side too. The uncut step is the same code with the cut
k + m = L. The plain loop is what one would write with transformers and peft alone: the same weights, adapter, batch,
per-sequence loss and AdamW. All of them take turns in one process, and their first two losses must agree.
"""

import copy
import gc
import itertools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from measuring import arguments, goal, goal_text, interleaved, machine, ratios, spread, table, write
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from pplr_audit import scenario
from pplr_audit.data.dataset import Ragged
from pplr_audit.data.prompts import TARGET, TEMPLATE, Prompt, Prompts, collate
from pplr_audit.data.samples import Samples
from pplr_audit.models.cut import CutModel, cut
from pplr_audit.models.lora import Adapter, adapter_parameters, add_lora, read_adapter
from pplr_audit.models.recommenders.bigrec import BigRec, tensors
from pplr_audit.training.rounds import assemble, train
from pplr_audit.training.strategies.pplr import Pplr

AGAINST_UNCUT, AGAINST_PEFT = 1.05, 1.1
TRAINING = scenario.Training(batch_size=16)
TARGETS = ("q_proj", "v_proj")
LORA = scenario.Lora(targets=TARGETS)
ANSWER = 8
"""Tokens at the end of each sequence that are learned."""


@dataclass(frozen=True)
class Taken:
    """One step: how long it took, and the loss before it."""

    seconds: float
    loss: float


Step = Callable[[], Taken]


@dataclass(frozen=True)
class Size:
    """A Llama and its batch."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    tokens: int

    @property
    def text(self) -> str:
        return f"hidden {self.hidden}, {self.layers} blocks, {TRAINING.batch_size} × {self.tokens} tokens"


SIZES = {
    "small Llama": Size(hidden=256, intermediate=688, layers=8, vocabulary=2000, tokens=128),
    "smaller Llama": Size(hidden=128, intermediate=344, layers=6, vocabulary=720, tokens=256),
}


class RandomText:
    """Stands in for `Prompts`: sequences of random tokens up to the wanted length, padded as real ones are."""

    pad = 0

    def __init__(self, size: Size) -> None:
        self._size = size

    def lengths(self, history: Ragged | None, targets: np.ndarray) -> np.ndarray:
        del history
        # Lengths differ, so that the mask matters; the first sequence has the full length.
        return self._size.tokens - targets % (self._size.tokens // 4)

    def build(self, history: np.ndarray, target: int) -> Prompt:
        del history
        length = int(self.lengths(None, np.array([target]))[0])
        tokens = np.random.default_rng(target).integers(1, self._size.vocabulary, length)
        slots = np.where(np.arange(length) < length - ANSWER, TEMPLATE, TARGET)
        return Prompt(tokens, slots, np.array([], dtype=np.int64), length - ANSWER, slots)


class Answers(BigRec):
    """BIGRec that only trains: it has no catalogue to rank."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts, self._loss_on, self.base_encoding = prompts, "title", {}


def base_model(size: Size, seed: int) -> Any:
    config = LlamaConfig(
        vocab_size=size.vocabulary, hidden_size=size.hidden, intermediate_size=size.intermediate,
        num_hidden_layers=size.layers, num_attention_heads=4, max_position_embeddings=1024,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).requires_grad_(False)


@dataclass(frozen=True)
class Cut:
    """A model that was cut, as `assemble` takes it."""

    task: Answers
    parts: CutModel
    initial: Adapter


def client_step(base: Any, size: Size, front: int, back: int) -> tuple[Step, Adapter]:
    """A client with one batch, whose every round is one step; answers that step's seconds."""
    model = copy.deepcopy(base)
    add_lora(model, LORA, seed=1)
    initial = read_adapter(adapter_parameters(model))
    parts = cut(model, front, back)
    rows = TRAINING.batch_size
    empty = Ragged(np.zeros(rows + 1, dtype=np.int64), np.array([], dtype=np.int64))
    samples = Samples(np.arange(rows), empty, np.arange(rows))
    federation = assemble(
        {"client-0": samples},
        Cut(Answers(cast(Prompts, RandomText(size))), parts, initial),
        TRAINING,
        Pplr(TRAINING),
        seed=0,
    )
    # A round begins and ends with copies of the adapter, which are no part of a step: the clock runs from the call of
    # the client's model until the server has stepped its trunk.
    stamps: dict[str, float] = {}
    parts.client.register_forward_pre_hook(lambda *_: stamps.update(start=time.perf_counter()))
    link, finish = federation.link, federation.link.finish_step

    def finish_step(client: str, round_: int, step: int) -> None:
        finish(client, round_, step)
        stamps["end"] = time.perf_counter()

    link.finish_step = finish_step  # type: ignore[method-assign]
    losses: list[float] = []
    numbers = itertools.count(1)

    def step() -> Taken:
        number = next(numbers)
        train(federation, number, first=number, done=lambda log, _: losses.append(log.losses["client-0"]))
        return Taken(stamps["end"] - stamps["start"], losses[-1])

    return step, initial


def plain_step(base: Any, size: Size, initial: Adapter) -> Step:
    """The step of a loop over get_peft_model; answers its seconds."""
    config = LoraConfig(
        r=LORA.rank, lora_alpha=int(LORA.alpha), lora_dropout=LORA.dropout, target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model: Any = get_peft_model(copy.deepcopy(base), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(initial[name.removeprefix("base_model.model.")])
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=TRAINING.learning_rate, weight_decay=TRAINING.weight_decay)
    text = RandomText(size)
    prompts = [text.build(np.array([]), row) for row in range(TRAINING.batch_size)]
    tokens, mask, learned = tensors(collate(prompts, text.pad))

    def step() -> Taken:
        started = time.perf_counter()
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
        wanted = learned[:, 1:]
        loss = ((each * wanted).sum(1) / wanted.sum(1)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return Taken(time.perf_counter() - started, float(loss.detach()))

    return step


def measure(size: Size, steps: int, warm_up: int, seed: int) -> dict[str, list[float]]:
    """Seconds of each step of each side, turn by turn."""
    base = base_model(size, seed)
    uncut, initial = client_step(base, size, size.layers - 1, 1)
    halves = (size.layers // 2, 1)
    sides: dict[str, Step] = {"uncut": uncut, "peft": plain_step(base, size, initial)}
    for front, back in ((1, 1), halves):
        sides[f"k={front}, m={back}"], _ = client_step(base, size, front, back)
    losses = [[step().loss for _ in range(2)] for step in sides.values()]
    if not np.allclose(losses, losses[0], atol=1e-4):
        raise SystemExit(f"the sides do not train the same: {dict(zip(sides, losses, strict=True))}")
    timed = {name: (lambda step=step: step().seconds) for name, step in sides.items()}
    return interleaved(timed, steps, warm_up)


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    chosen = arguments(__doc__ or "", repeats=5)
    at, steps, warm_up = machine(), *((5, 1) if chosen.quick else (15, 3))
    figures: dict[str, Any] = {"steps": steps, "repeats": chosen.repeats, "sizes": {}}
    rows = []
    for label, size in SIZES.items():
        runs = []
        for repeat in range(chosen.repeats):
            runs.append(measure(size, steps, warm_up, seed=repeat))
            gc.collect()
        found: dict[str, Any] = {"size": size, "seconds": {}, "ratio": {}}
        for side in runs[0]:
            found["seconds"][side] = spread([spread(run[side]).median for run in runs])
            if side in ("uncut", "peft"):
                continue
            for against, most in (("uncut", AGAINST_UNCUT), ("peft", AGAINST_PEFT)):
                over = spread([spread(ratios(run[side], run[against])).median for run in runs])
                found["ratio"][f"{side} / {against}"] = {"over_repeats": over, "goal": goal(over.median, most)}
                rows.append(
                    [label, size.text, f"{side} / {against}", over.text(digits=3), goal_text(over.median, most)]
                )
        for side in ("uncut", "peft"):
            rows.append([label, size.text, f"{side}, seconds for a step", found["seconds"][side].text(" s"), ""])
        figures["sizes"][label] = found
    text = (
        f"A ratio compares the seconds of two variants in the same turn; its median over {steps} interleaved steps is"
        f" taken. A figure is the median (least–most) of this over {chosen.repeats} models that are built anew.\n\n"
        + table(["model", "size", "what", "median (least–most)", "goal"], rows)
    )
    write("split_step", "One training step, split against uncut", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
