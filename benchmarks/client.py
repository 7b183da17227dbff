"""One client of a real model on real data, for measurements of what crosses its cuts.

An encoder (RecFormer on MiniLM, amazon-games) or a decoder (BIGRec on stories260k, a Llama of 5 blocks, ml-100k).
Some local steps on its own samples, then one step more on the victims, of which states or gradients are tapped. The
synthetic market and a small random model stand in for both in a quick form.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pplr_audit import scenario
from pplr_audit.data.prepare import prepare
from pplr_audit.data.prompts import Prompt
from pplr_audit.models.architectures import blocks
from pplr_audit.models.backbones.load import set_dropout
from pplr_audit.models.build import Recommender, build
from pplr_audit.models.lora import Adapter, adapter_parameters, read_adapter
from pplr_audit.models.taps import Tapped
from pplr_audit.training.optimizer import LocalOptimizer, OptimizerState, Stretch

SHARED = Path(__file__).resolve().parents[2] / "shared"
DATA = Path(os.environ.get("PPLR_AUDIT_DATA") or SHARED / "data")
MODELS = Path(os.environ.get("PPLR_AUDIT_MODELS") or SHARED / "models")
BATCH = 16
RATES = {"encoder": 5e-4, "decoder": 5e-3}

Kind = Literal["encoder", "decoder"]


@dataclass(frozen=True)
class Client:
    """Its model, and its samples in a random order."""

    kind: Kind
    scenario: scenario.Scenario
    model: Recommender
    prompts: list[Prompt]

    def popularity(self, prompts: Sequence[Prompt]) -> np.ndarray:
        """How often each item is the next one."""
        return np.bincount([prompt.target for prompt in prompts], minlength=len(self.model.prompts.titles))

    def trained(self, prompts: Sequence[Prompt], steps: int, kept: Sequence[int]) -> dict[int, Adapter]:
        """The adapter after each number of local steps in ``kept``, and after all."""
        network = self.model.whole.model
        parameters = adapter_parameters(network)
        optimizer = LocalOptimizer(
            parameters, scenario.Training(learning_rate=RATES[self.kind]), Stretch(0, steps), OptimizerState()
        )
        found = {0: read_adapter(parameters)}
        network.train()
        for step in range(steps):
            rows = np.random.default_rng(step).choice(len(prompts), BATCH, replace=False)
            self.model.task.loss(network, [prompts[row] for row in rows], self.model.task.base_encoding).backward()
            optimizer.step()
            if step + 1 in {*kept, steps}:
                found[step + 1] = read_adapter(parameters)
        network.eval()
        return found

    def place(self, layer: int) -> Tapped:
        """Where h_l is met."""
        whole = list(blocks(self.model.whole.model))
        return Tapped(layer, whole[-1], leaves=True) if layer == len(whole) else Tapped(layer, whole[layer])

    @contextmanager
    def dropping(self, share: float) -> Iterator[None]:
        """Within the block the model trains with this dropout; 0: it is in evaluation mode."""
        network = self.model.whole.model
        set_dropout(network, share)
        network.train(share > 0)
        try:
            yield
        finally:
            network.eval()
            set_dropout(network, 0.0)


@contextmanager
def prepared(name: str, *, quick: bool, kind: Kind = "encoder") -> Iterator[Client]:
    """The client; a quick form's model lies in a folder that is gone at the end."""
    shared = {"clients": 2, "partition": "random", "audit_users": 2, "samples": "last"}
    with tempfile.TemporaryDirectory() as folder:
        if quick:
            data: dict[str, Any] = {"market": {"users": 200, "items": 48, "tastes": 3}}
            backbone = _small(Path(folder)) if kind == "encoder" else "tiny-llama"
        elif kind == "encoder":
            data, backbone = {"path": str(DATA / "amazon-games"), "split": "given"}, "minilm"
        else:
            data, backbone = {"path": str(DATA / "ml-100k")}, str(MODELS / "stories260k")
        encoder = {
            "recommender": "recformer", "max_tokens": 384, "dropout": 0.0,
            "recformer": {"pooling": "mean", "refresh_rounds": 0},
        }  # fmt: skip
        values = {
            "name": name, "data": {**shared, **data},
            "model": {"backbone": backbone, **(encoder if kind == "encoder" else {"recommender": "bigrec"})},
        }  # fmt: skip
        chosen = scenario.Scenario.model_validate(values)
        private = prepare(chosen.data, chosen.seed)
        model = build(chosen.model, private.dataset.catalogue, history=chosen.data.history, seed=0)
        samples: Any = private.samples["client-0"]
        order = np.random.default_rng(0).permutation(len(samples))
        prompts = [model.prompts.build(samples.history[row], int(samples.targets[row])) for row in order]
        yield Client(kind, chosen, model, prompts)


def _small(folder: Path) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *map(chr, range(33, 127)), *(f"##{chr(c)}" for c in range(33, 127))]
    tokenizer = Tokenizer(models.WordPiece({mark: i for i, mark in enumerate(marks)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(marks), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return str(folder)
