"""Composition of defenses: the scenario's entry as one value, or a refusal of what makes no sense together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pplr_audit import scenario
from pplr_audit.errors import InputError
from pplr_audit.scenario import plugins
from pplr_audit.scenario.compositions import NONE, Composition, canonical, conflict, flat
from pplr_audit.threat_model.adversaries import SEES
from pplr_audit.threat_model.channels import Channel
from pplr_audit.threat_model.defense import Act, Defense, Neighbors, Unit
from pplr_audit.training.strategies.protocol import Strategy

CUT_FREE = frozenset({Channel.STATUS, Channel.AGGREGATE, Channel.MODEL_OUTPUT})
"""Channels that carry the same wherever the cut lies."""
HOOKS: Mapping[Act, tuple[str, ...]] = {
    "sampler": ("batches",), "samples": ("combine",), "gradients": ("gradients",), "wire": ("encode", "decode"),
    "updates": ("updates",), "sum": ("sum",),
}  # fmt: skip
"""Hooks that a defense must have where it acts; `apply` stands for both of ``wire``."""
_ALONE: Mapping[Act, str] = {
    "sampler": "draw the batches", "samples": "make the gradient of those of single samples", "sum": "sum the updates",
}  # fmt: skip
"""Places where one defense leaves nothing for another."""


@dataclass(frozen=True)
class Composed:
    """Defenses in force together, in the order in which they act."""

    name: str = "none"
    """Name as findings have it, such as ``dp_sgd(epsilon=8)+quantize(bits=8)``."""
    defenses: tuple[Defense, ...] = field(default=(), compare=False)
    plugins: tuple[str, ...] = ()
    """The name of each among the entry points."""

    @property
    def at_cut(self) -> bool:
        """True if each cut needs a training of its own."""
        return any(map(_at_cut, self.defenses))

    @property
    def removes(self) -> frozenset[Channel]:
        """The channels that are taken away."""
        return frozenset().union(*(each.removes for each in self.defenses))

    @property
    def holds_against(self) -> frozenset[str]:
        """The adversaries that the guarantee of any of them binds; each one says what it guarantees."""
        return frozenset().union(*(each.holds_against for each in self.defenses))

    def acting(self, act: Act) -> tuple[int, ...]:
        """Return the places, in order, of those that act there."""
        return tuple(place for place, each in enumerate(self.defenses) if act in each.acts)


UNDEFENDED = Composed()


def compose(entry: Composition, training: scenario.Training) -> Composed:
    """Make the defenses of one entry of ``defenses``: a name, ``{name: {setting: value}}``, or a list of these.

    Raises:
        InputError: one is not installed or does not take its settings, lacks a hook of a place where it acts, or they
            contradict each other or the training's strategy. The message names the defenses.
    """
    name, wrong = canonical(entry), conflict(entry)
    if wrong is None:
        entries = [each for each in flat(entry) if each != NONE]
        named = tuple(plugins.name_and_settings(each)[0] for each in entries)
        made = (plugins.make("defenses", each, "defenses") for each in entries)
        composed = Composed(name, tuple(map(_sound, made, named)), named)
        wrong = _contradiction(composed, training)
    if wrong is not None:
        raise InputError(f"defenses: {name}: {wrong}")
    return composed


def _sound(made: Any, name: str) -> Defense:
    """Return the defense that ``name`` makes, if it is one and has all that it says it has."""
    if not isinstance(made, Defense):
        raise InputError(f"defenses: {name} is a {type(made).__name__} and no pplr_audit.threat_model.Defense")
    for what in ("acts", "channels", "removes", "holds_against"):
        if not isinstance(getattr(made, what), frozenset | set | tuple | list):
            raise InputError(f"defenses: {name}: {what} is {getattr(made, what)!r} (accepted: a set of names)")
    for what in ("unit", "neighbors"):
        if not isinstance(getattr(made, what), str | None):
            raise InputError(f"defenses: {name}: {what} is {getattr(made, what)!r} (accepted: a name or None)")
    for what, given, accepted in (
        ("acts", made.acts, get_args(Act)), ("channels", made.channels, tuple(map(str, Channel))),
        ("removes", made.removes, (str(Channel.CLIENT_UPDATE),)), ("unit", {made.unit} - {None}, get_args(Unit)),
        ("holds_against", made.holds_against, (*SEES, "server", "malicious_server")),
        ("neighbors", {made.neighbors} - {None}, get_args(Neighbors)),
    ):  # fmt: skip
        for each in sorted(set(map(str, given)) - set(accepted)):
            raise InputError(plugins.unknown(f"defenses: {name}: {what}: {each!r}", each, accepted))
    for act in made.acts:
        lacking = _lacking(made, act)
        if lacking is not None:
            raise InputError(f"defenses: {name} acts at {act!r} and lacks the hook {lacking}")
    for act, what, given in (("wire", "channels", made.channels), ("sum", "removes", made.removes)):
        if (act in made.acts) != bool(given):
            wrong = f"has {what} and does not act at {act!r}" if given else f"acts at {act!r} and names no {what}"
            raise InputError(f"defenses: {name} {wrong}")
    return made


def _lacking(defense: Defense, act: Act) -> str | None:
    """Return a hook that a defense that acts there must have and has not."""
    own = {hook for hook in ("apply", *HOOKS[act]) if getattr(type(defense), hook) is not getattr(Defense, hook)}
    if act == "wire" and "encode" not in own:
        return None if "apply" in own else "apply"
    return next((hook for hook in HOOKS[act] if hook not in own), None)


def _contradiction(composed: Composed, training: scenario.Training) -> str | None:
    """Return what makes no sense in these defenses together, or with the training's strategy; or None."""
    called = composed.plugins
    for act, what in _ALONE.items():
        acting = composed.acting(act)
        if len(acting) > 1:
            return f"{called[acting[0]]} and {called[acting[1]]} both {what}: only one can"
    if not composed.acting("sum"):
        return None
    summing = called[composed.acting("sum")[0]]
    for place in composed.acting("updates"):
        return f"{called[place]} acts on each update at the server, to which {summing} leaves only the sum"
    for place in composed.acting("wire"):
        defense = composed.defenses[place]
        if Channel.CLIENT_UPDATE in defense.channels and codes(defense):
            return f"{called[place]} has a code of its own for each client_update, which {summing} takes away"
    if training.averaging == "product":
        return f"{summing} leaves only the sum of the updates, and training.averaging product needs each factor"
    strategy: Strategy = plugins.load("strategies", training.strategy)(training)
    if getattr(strategy, "needs", "updates") != "sum":
        return (
            f"{summing} leaves only the sum of the updates, and the strategy {training.label} needs each of them"
            f" (strategies that need the sum only: {', '.join(_content_with_the_sum(training))})"
        )
    return None


def _content_with_the_sum(training: scenario.Training) -> list[str]:
    known = {name: plugins.load("strategies", name) for name in plugins.names("strategies")}
    plain = training.model_copy(update={"ablate": None})
    return [name for name, make in known.items() if getattr(make(plain), "needs", "updates") == "sum"] or ["none"]


def codes(defense: Defense) -> bool:
    """True if what a defense puts on the wire is a code that its receiver decodes."""
    return type(defense).encode is not Defense.encode


def _at_cut(defense: Defense) -> bool:
    return bool(defense.channels - CUT_FREE) if defense.at_cut is None else defense.at_cut
