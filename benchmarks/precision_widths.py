"""How much faster bfloat16 is than float32 on this processor, by the width of the model.

A step of LoRA training (forward and backward) and a pass without gradients, of a LLaMA and a BERT of four blocks with
random weights, without dropout. Both formats take turns; medians of the ratios with the spread over all turns.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from encoder_speed import timed
from measuring import RESULTS, interleaved, machine, ratios, spread, table, write
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from pplr_audit.models.lora import add_lora
from pplr_audit.models.precision import WIDE, Precision, choose_attention, compute_in, in_hardware
from pplr_audit.scenario.schema import Lora

BATCH, VOCABULARY, HEAD = 16, 2_000, 32


def made(kind: str, width: int, precision: Precision) -> Any:
    """A model of four blocks with an adapter, in training mode."""
    shared = {
        "vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": 4, "num_attention_heads": width // HEAD,
    }  # fmt: skip
    if kind == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**shared, intermediate_size=3 * width))
    else:
        still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = BertModel(BertConfig(**shared, **still, intermediate_size=4 * width), add_pooling_layer=False)
    model.requires_grad_(False)
    add_lora(model, Lora(), 0)
    choose_attention(model, precision)
    compute_in(model, precision)
    return model.train()


def works(model: Any, tokens: torch.Tensor) -> dict[str, Callable[[], object]]:
    def trains() -> None:
        model(input_ids=tokens)[0].float().square().mean().backward()

    @torch.no_grad()
    def reads() -> None:
        model(input_ids=tokens)

    return {"training": trains, "reading": reads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one width, two turns; nothing is written")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, help="where to write (default: benchmarks/results; --quick: nowhere)")
    asked = parser.parse_args()
    at, lines = machine(), []
    figures: dict[str, Any] = {}
    for kind in ("llama", "bert"):
        for positions in (60, 200):
            for width in (64,) if asked.quick else (64, 128, 256, 384, 512):
                tokens = torch.randint(VOCABULARY, (BATCH, positions))
                sides = {
                    (what, precision): timed(work)
                    for precision in get_args(Precision)
                    for what, work in works(made(kind, width, precision), tokens).items()
                }
                taken = interleaved(sides, 2 if asked.quick else asked.repeats, warm_up=1)
                faster = {
                    what: spread(ratios(taken[what, "float32"], taken[what, "bfloat16"]))
                    for what in ("training", "reading")
                }
                figures[f"{kind}, {positions} positions, {width}"] = faster
                lines.append([kind, str(positions), str(width), *(each.text(digits=2) for each in faster.values())])
    text = (
        f"Seconds in float32 divided by seconds in bfloat16, with {BATCH} sequences in a step. The processor has"
        f" {'' if in_hardware() else 'no '}instructions for bfloat16. `precision: auto` chooses bfloat16 from"
        f" hidden size {WIDE}.\n\n"
    )
    text += table(["model", "positions", "hidden size", "training", "inference"], lines)
    into = asked.results or (None if asked.quick else RESULTS)
    write("precision_widths", "What bfloat16 gains, by the width of a model", text, figures, at, into)


if __name__ == "__main__":
    main()
