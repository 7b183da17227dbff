"""What to do: the validated scenario. Every field has a default; a scenario states only what it is about."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Market(Section):
    """The size of the synthetic market, used where ``data.path`` is ``synthetic``."""

    users: Annotated[int, Field(ge=20)] = 600
    items: Annotated[int, Field(ge=40, le=2000)] = 160
    tastes: Annotated[int, Field(ge=2, le=8)] = 5


class Data(Section):
    """Where the interactions come from, who holds them, and who is audited."""

    path: str = "synthetic"
    reader: str = "auto"
    market: Market = Market()
    clients: Annotated[int, Field(ge=2)] = 5
    partition: Literal["kmeans", "per_user", "random"] = "kmeans"
    history: Annotated[int, Field(ge=1)] = 10
    split: Literal["leave_one_out", "given"] = "leave_one_out"
    users: Annotated[int, Field(ge=2)] | None = None
    """Take at most this many users (chosen by the seed); none takes all."""
    audit_users: Annotated[int, Field(ge=2)] = 800
    test_users: Annotated[int, Field(ge=1)] | None = None
    """Measure utility on at most this many training users; none takes all."""
    samples: Literal["last", "all"] = "last"


class Lora(Section):
    """The adapter: one for the whole model, its parts selected by absolute layer."""

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")


class Cut(Section):
    """How many blocks stay on the client: the first ``front`` and the last ``back``."""

    front: Annotated[int, Field(ge=0)] = 1
    back: Annotated[int, Field(ge=0)] = 1


class Model(Section):
    """The backbone, the recommender built on it, and the cut that training really runs."""

    backbone: str = "tiny-llama"
    recommender: Literal["bigrec"] = "bigrec"
    lora: Lora = Lora()
    max_tokens: Annotated[int, Field(ge=16)] = 512
    precision: Literal["auto", "float32"] = "auto"
    beams: Annotated[int, Field(ge=1, le=16)] = 4
    popularity_weight: Annotated[float, Field(ge=0)] = 0.0
    cut: Cut = Cut()


class Training(Section):
    """The rounds, the local optimizer, and the dynamic balance (FACTS: alpha, beta, tau)."""

    strategy: str = "pplr"
    rounds: Annotated[int, Field(ge=1)] = 5
    local_epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    loss_on: Literal["title", "all"] = "title"
    similarity: Literal["parameters", "update"] = "parameters"
    alpha: Annotated[float, Field(gt=0)] = 0.7
    beta: Annotated[float, Field(gt=0)] = 5
    tau: Annotated[float, Field(gt=0)] = 0.05


class Budget(Section):
    """What one attack may spend on one cell."""

    seconds: Annotated[float, Field(gt=0)] = 300


class Audit(Section):
    """Which cuts, adversaries and attacks to measure."""

    cuts: Literal["all"] | tuple[tuple[int, int], ...] = "all"
    adversaries: tuple[Literal["server", "trunk_host", "outsider"], ...] = ("server", "outsider")
    attacks: tuple[str | dict[str, dict[str, Any]], ...] = ("ridge", "loss")
    knowledge: Literal["strongest", "base"] = "strongest"
    rounds: Literal["last", "all"] | tuple[int, ...] = "last"
    victims: Annotated[int, Field(ge=1)] = 200
    budget: Budget = Budget()


class Report(Section):
    """What is written at the end."""

    formats: tuple[Literal["html", "md"], ...] = ("html", "md")


class Scenario(Section):
    """One file says everything."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "audit"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    defenses: tuple[Literal["none"], ...] = ("none",)
    audit: Audit = Audit()
    report: Report = Report()
