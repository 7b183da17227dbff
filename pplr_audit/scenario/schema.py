"""The validated scenario. Every field has a default; a scenario states only what it is about."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)  # fmt: skip
from pydantic_core import PydanticCustomError

from pplr_audit.scenario import compositions, old_names, rivals

LARGEST = 2**32
"""No whole number is larger: a larger one is a slip, and arrays could not hold what it counts."""


class Section(BaseModel):
    """Fields and nothing else: an unknown one is an error, an empty section stands for its defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if value is None and isinstance(kind, type) and issubclass(kind, Section):
            return {}
        if isinstance(value, bool) and kind is not bool:
            raise PydanticCustomError("type", "not true or false")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"a whole number of at most {LARGEST}")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _no_twins(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("an empty list is not accepted")
            for position, item in enumerate(value):
                if item in value[:position]:
                    raise ValueError(f"{list(item) if isinstance(item, tuple) else item!r} stands there twice")
        return value


class Market(Section):
    """The size of the synthetic market, used where ``data.path`` is ``synthetic``."""

    users: Annotated[int, Field(ge=20)] = 600
    items: Annotated[int, Field(ge=40, le=2000)] = 160
    tastes: Annotated[int, Field(ge=2, le=8)] = 5


Settings = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
Named = Annotated[str, Field(description="a name")] | Settings
"""A plugin by its name, or ``{name: {setting: value}}``."""
Composition = Named | Annotated[tuple[Named, ...], Field(min_length=1)]
"""One plugin, or several that are in force together."""


class Shares(Section):
    """Shares of all interactions in order of time: the last go to the test and those before them to validation."""

    valid: Annotated[float, Field(ge=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1


Attribute = Annotated[str, Field(pattern=r"^attribute:.+$", description="attribute:NAME")]


class Data(Section):
    """The data section: where the interactions come from, who holds them, and who is audited."""

    path: Annotated[str, Field(min_length=1, description="a folder or a file, or synthetic")] = "synthetic"
    reader: Annotated[Named, Field(description="auto, or a reader's name, or {name: {setting: value}}")] = "auto"
    market: Market = Market()
    clients: Annotated[int, Field(ge=2)] = 5
    min_rating: float | None = None
    """Leave out interactions rated lower; none keeps all."""
    duplicates: Literal["keep", "first", "last"] = "keep"
    """Selection among a user's interactions with one item."""
    core: Annotated[int, Field(ge=1)] = 1
    """Leave out users and items with fewer interactions than this, again and again until none is left."""
    partition: Literal["kmeans", "per_user", "random"] | Attribute = "kmeans"
    history: Annotated[int, Field(ge=1)] = 10
    split: Literal["leave_one_out", "global_time", "given"] = "leave_one_out"
    shares: Shares = Shares()
    """Shares of ``split: global_time``."""
    users: Annotated[int, Field(ge=2)] | None = None
    """Take at most this many users (chosen by the seed); none takes all."""
    audit_users: Annotated[int, Field(ge=2)] = 800
    """Audit at most this many users: a coin for each decides whether it trains."""
    reserve: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each client's users, rounded, who train in no audited training: an adversary's auxiliary text."""
    test_users: Annotated[int, Field(ge=1)] | None = None
    """Measure utility on at most this many training users; none takes all."""
    samples: Literal["last", "all"] = "last"


class Lora(Section):
    """The adapter: one for the whole model, its parts selected by absolute layer."""

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[
        Literal["all"] | tuple[str, ...] | None,
        Field(description="linear layers of a block, or all of them whatever the backbone's family calls them; none "
              "takes the family's usual ones: q_proj and v_proj, c_attn (GPT-2), query and value (BERT)"),
    ] = None  # fmt: skip


class Cut(Section):
    """The blocks that stay on the client: the first ``front`` and the last ``back``."""

    front: Annotated[int, Field(ge=0)] = 1
    back: Annotated[int, Field(ge=0)] = 1


class Recformer(Section):
    """Settings of ``recommender: recformer``."""

    attributes: tuple[Literal["title", "categories"], ...] = ("title", "categories")
    """Attributes that an item is read as, in this order."""
    attribute_tokens: Annotated[int, Field(ge=1)] = 32
    pooling: Literal["cls", "mean"] = "cls"
    temperature: Annotated[float, Field(ge=5e-3)] = 0.05
    train: Literal["lora", "embeddings", "all"] = "embeddings"
    """LoRA alone; LoRA and the new embeddings; or all weights, without LoRA."""
    ids: bool = False
    """Train a vector for each item, too, which is added to its encoding where items are compared (UniSRec)."""
    refresh_rounds: Annotated[int, Field(ge=0)] | None = None
    """The item table is encoded anew at every local epoch of the first so many rounds and once after them, then it is
    frozen; none: of the first half of the rounds. With 0 it is the base model's."""
    refresh_steps: Annotated[int, Field(ge=1)] | None = None
    """Local steps of an epoch after which it is encoded anew in those rounds, too; none: only at the epoch's start."""


class Model(Section):
    """The backbone, the recommender built on it, and the cut that training really runs."""

    backbone: Annotated[str, Field(min_length=1, description="a hub name, a folder, tiny-llama or minilm")] = (
        "tiny-llama"
    )
    recommender: Literal["bigrec", "recformer"] = "bigrec"
    recformer: Recformer = Recformer()
    lora: Lora = Lora()
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout of the backbone's own layers in training; none leaves it as the backbone has it."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto is bfloat16 where the processor has it and the model is wide enough."""
    beams: Annotated[int, Field(ge=1, le=16)] = 4
    popularity_weight: Annotated[float, Field(ge=0)] = 0.0
    cut: Cut = Cut()


class Training(Section):
    """The rounds, the local optimizer, and the dynamic balance (FACTS: alpha, beta, tau)."""

    strategy: Annotated[str, Field(description="a strategy's name")] = "pplr"
    rounds: Annotated[int, Field(ge=1)] = 5
    local_epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all local steps in which the learning rate first rises from zero."""
    loss_on: Literal["title", "all"] = "title"
    similarity: Literal["parameters", "update"] = "parameters"
    alpha: Annotated[float, Field(gt=0)] = 0.7
    beta: Annotated[float, Field(ge=1e-3)] = 5
    tau: Annotated[float, Field(ge=1e-6)] = 0.05
    rivals: tuple[Named, ...] | None = None
    """Strategies to train beside it on the same samples with the same seed, and to compare with user by user: a name,
    or {name: {setting: value}} with settings of this section that are the balance's own."""
    ablate: tuple[Literal["similarity", "speed", "heating", "balance"], ...] | None = None
    """Terms of pplr's balance to switch off; ``balance`` is all of it and leaves the average of fedavg."""
    averaging: Literal["factors", "product"] = "factors"
    """Parts of a LoRA layer that are averaged: A and B apart, or their product."""
    proximal: Annotated[float, Field(ge=0)] = 0.1
    """mu of fedprox, lambda of ditto."""
    participation: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the clients that train in a round, at least one; drawn anew for every round."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """Train on at most this many samples, all clients together, each giving its share; none takes all."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop a client whose ``stop_on`` has not got better in so many rounds, and serve its best model; none: never."""
    stop_on: Literal["recall@10", "ndcg@10", "recall@20", "ndcg@20"] = "recall@10"
    """Measured on validation items of users who train."""
    valid_users: Annotated[int, Field(ge=1)] = 200
    """Users of each client whose validation items decide on stopping."""

    _otherwise: tuple[str, ...] = PrivateAttr(())
    """Settings of a rival that the run's own training has otherwise."""

    @field_validator("strategy", "rivals", mode="before")
    @classmethod
    def _names_of_today(cls, value: Any) -> Any:
        return old_names.accepted(value)

    @property
    def label(self) -> str:
        """The strategy with what is switched off of it, and a rival's own settings, as findings name it."""
        name = f"{self.strategy} without {', '.join(sorted(self.ablate))}" if self.ablate else self.strategy
        values = {setting: getattr(self, setting) for setting in self._otherwise}
        told = [f"{s} {v:.12g}" if isinstance(v, float) else f"{s} {v}" for s, v in values.items()]
        return f"{name} with {', '.join(told)}" if told else name

    def as_rival_of(self, own: Self) -> Self:
        """The same as a rival of ``own``: its label names the settings by which it differs, apart from ``ablate``."""
        rival = self.model_copy()
        names = (name for name in rivals.SETTINGS if name != "ablate")
        rival._otherwise = tuple(name for name in names if getattr(self, name) != getattr(own, name))
        return rival


class Budget(Section):
    """Budget of one attack on one cell. How much it tries is counted in units of its own, by its settings."""

    seconds: Annotated[float, Field(gt=0)] = 300
    """Ceiling on the seconds of a call; an attack that reaches it ends as budget_exhausted, without a value."""


Blocks = Annotated[int, Field(ge=0, strict=True)]
Cuts = Literal["all"] | tuple[tuple[Blocks, Blocks], ...]
"""Every front, or pairs of (front, back)."""


Peer = Annotated[str, Field(min_length=1)]


class Audit(Section):
    """The audit section: the cuts, adversaries and attacks to measure."""

    cuts: Cuts = "all"
    adversaries: tuple[Literal["server", "trunk_host", "aggregator", "malicious_server", "peer", "outsider"], ...] = (
        "server",
        "outsider",
    )
    attacks: tuple[Named, ...] = ("ridge", "loss")
    knowledge: Literal["strongest", "base", "auxiliary"] = "strongest"
    """Knowledge of an adversary besides catalogue and template. ``strongest``: whoever is sent the clients' updates
    has their fronts at both ends of the round, all others the public base weights; ``base``: those weights alone;
    ``auxiliary``: no weights, but the prompts of one colluding client and what crossed of them. It is the client with
    the most samples, and none of its users is a victim."""
    auxiliary: Literal["matched", "catalogue", "public", "none"] = "matched"
    """Inputs on which an adversary runs the weights that it has. ``matched``: histories of the users of
    ``data.reserve``, and random ones where these are too few; ``catalogue``: random histories over the same catalogue;
    ``public``: over the titles of another one (a synthetic market's); ``none``: nothing."""
    peer: Annotated[
        Peer | tuple[Peer, ...] | None, Field(description="a client's name, or several names; none draws one")
    ] = None
    """The client that is the adversary ``peer``, or several that put together what they have; none: one is drawn. Their
    own users are no victims of them."""
    rounds: Literal["last", "all"] | tuple[Annotated[int, Field(ge=1, strict=True)], ...] = "last"
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32, strict=True)], ...] | None = None
    """Seeds under which everything is drawn and trained again, and attacked the same way, for intervals over trainings;
    the scenario's own seed is always one of them; none: it alone."""
    strategies: Literal["own", "all"] = "own"
    """Trainings to attack: the scenario's own and its defended ones, or its rivals as well."""
    victims: Annotated[int, Field(ge=1)] = 200
    budget: Budget = Budget()


class Report(Section):
    """The report section: the formats written at the end."""

    formats: tuple[Literal["html", "md"], ...] = ("html", "md")


class Scenario(Section):
    """One file says everything."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "audit"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    defenses: tuple[Composition, ...] = ("none",)
    """Defenses to train with, each anew: a name, {name: {setting: value}}, or a list of these that are in force
    together. ``none`` trains without."""
    audit: Audit = Audit()
    report: Report = Report()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for field, message in _conflicts(self):
            raise PydanticCustomError("conflict", "{message}", {"field": field, "message": message})
        return self


def _conflicts(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Fields that are right one by one and wrong together."""
    data, rounds, last = scenario.data, scenario.audit.rounds, scenario.training.rounds
    if not isinstance(rounds, str) and max(rounds) > last:
        yield "audit.rounds", f"round {max(rounds)} is not among the {last} of training.rounds"
    if scenario.audit.knowledge == "auxiliary" and scenario.audit.auxiliary != "matched":
        yield "audit.auxiliary", "is only for adversaries that have weights, but audit.knowledge is auxiliary"
    users = data.users if data.users is not None else data.market.users if data.path == "synthetic" else None
    if users is not None and users < data.clients and data.partition in ("kmeans", "random"):
        yield "data.clients", f"{data.clients} clients cannot share {users} users"
    training = scenario.training
    wrong = rivals.ablation(training.strategy, training.ablate)
    if wrong:
        yield "training.ablate", wrong
    yield from rivals.conflicts(training)
    yield from compositions.conflicts(scenario.defenses)
    model = scenario.model
    if model.recommender == "recformer":
        if model.popularity_weight:
            yield "model.popularity_weight", "is only for bigrec, but model.recommender is recformer"
        if training.loss_on == "all":
            yield (
                "training.loss_on",
                "all is only for bigrec, which generates sequences, but model.recommender is recformer",
            )
        if model.recformer.refresh_rounds == 0 and model.recformer.refresh_steps is not None:
            yield (
                "model.recformer.refresh_steps",
                "needs a round in which the item table is encoded anew, but refresh_rounds is 0",
            )
        if model.recformer.train == "all" and training.averaging == "product":
            yield "training.averaging", "product is only for LoRA, but model.recformer.train is all"
    elif model.recformer != Recformer():
        yield "model.recformer", f"is only for recformer, but model.recommender is {model.recommender}"
    if data.shares.valid + data.shares.test >= 1:
        yield "data.shares", f"valid {data.shares.valid} and test {data.shares.test} leave nothing to train on"
    if data.path == "synthetic" and data.history >= data.market.items:
        yield "data.history", f"{data.history} items are too many for a market of {data.market.items} items"
