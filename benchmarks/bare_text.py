"""Bare sequences of tokens for measurements: a model of a given shape, and its gradients on a batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from pplr_audit.audit.knowledge.known_model import KnownModel
from pplr_audit.data.prompts import Prompt, collate
from pplr_audit.models.uncut import UncutModel

TRAINED = "attn.c_attn.weight"
"""End of the names of the weights whose gradients are read."""


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder; as it is, that of GPT-2 small."""

    layers: int = 12
    hidden: int = 768
    vocabulary: int = 50_257


class Tokens:
    """A task of no recommender: it reads tokens, and is asked for nothing else here."""

    fixed = True

    def __init__(self) -> None:
        self.base_encoding: dict[str, Tensor] = {}

    def inputs(self, model: Any, prompts: Sequence[Prompt], *, serving: bool) -> dict[str, Tensor]:
        """Return the arguments of a forward pass."""
        del model, serving
        batch = collate(prompts, 0)
        return {"input_ids": torch.from_numpy(batch.tokens), "attention_mask": torch.from_numpy(batch.mask)}

    def logits(self, model: Any, like: Tensor, encoding: Any) -> Tensor:
        """Run the model with nothing but a length."""
        del encoding
        places = torch.arange(like.shape[1])[None]
        given = {"attention_mask": torch.ones(like.shape[:2]), "position_ids": places, "use_cache": False}
        out: Tensor = model(inputs_embeds=torch.zeros_like(like), **given)[0]
        return out


def classifier(shape: Shape, seed: int) -> nn.Module:
    """Return a classifier of two classes with random weights, as published figures on gradients have it."""
    config = GPT2Config(
        vocab_size=shape.vocabulary, n_embd=shape.hidden, n_layer=shape.layers, n_head=max(2, shape.hidden // 64),
        num_labels=2, pad_token_id=0, bos_token_id=0, eos_token_id=0, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = GPT2ForSequenceClassification(config).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(TRAINED))
    return model


def known(model: nn.Module) -> KnownModel:
    """Return the adversary's copy of a model."""
    return KnownModel(UncutModel(model, Tokens()), None)  # type: ignore[arg-type]  # no more of a task is asked for


def drawn(batch: int, length: int, shape: Shape, generator: torch.Generator) -> Int[Tensor, "batch length"]:
    """Return sequences of random words of the vocabulary; none is the padding."""
    return torch.randint(1, shape.vocabulary, (batch, length), generator=generator)


def gradients(
    model: Any, tokens: Int[Tensor, "batch length"], noise: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the gradients of the mean loss with random labels, with Gaussian noise on each number."""
    labels = torch.randint(2, (len(tokens),), generator=generator)
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    found = torch.autograd.grad(model(tokens, labels=labels).loss, [*named.values()])
    noisy = [each + noise * torch.randn(each.shape, generator=generator) if noise else each for each in found]
    return dict(zip(named, noisy, strict=True))
