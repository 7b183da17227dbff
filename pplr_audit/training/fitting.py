"""Check that the state of a round that was read fits the federation that is to go on from it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from pplr_audit.threat_model.channels import OF_ADAPTERS, ONCE_A_ROUND, Channel, Crossing
from pplr_audit.threat_model.defense import ALL
from pplr_audit.training.guards import said
from pplr_audit.training.optimizer import MOMENTS, OptimizerState
from pplr_audit.training.rounds import Federation, RoundState


def require_fit(state: RoundState, federation: Federation) -> None:
    """Raises ValueError that says what of ``state`` does not fit the federation's clients, adapters or encodings."""
    like = federation.state(1)  # of any round: names, shapes and types are those of all
    _require_names("clients", state.adapters, like.adapters)
    _require_names("clients with personal models", state.personal, like.personal)
    if not set(state.kept) <= {*like.adapters, ALL}:
        _require_names("clients that defenses remember", state.kept, like.adapters)
    for client, adapter in like.adapters.items():
        models = {"adapter": state.adapters[client]}
        if client in state.personal:
            models["personal"] = state.personal[client]
            _require_moments(f"{client}, personal moments", state.personal_optimizers[client], adapter)
        if client in state.best:
            models["best"] = state.best[client].adapter
        for kind, model in models.items():
            _require_alike(f"{client}, {kind}", model, adapter)
        _require_moments(f"{client}, moments", state.optimizers[client], adapter)
        for encodings in (state.encodings, state.personal_encodings):
            if client in encodings:
                _require_alike(f"{client}, memory", encodings[client], federation.task.base_encoding)


def require_crossed(crossings: Sequence[Crossing], federation: Federation) -> None:
    """Raises ValueError that says which crossing of a round does not fit the federation's clients and adapters."""
    like = federation.state(1).adapters
    held = set(federation.clients[0].shared.adapter)
    for each in crossings:
        who, whole = f"{each.channel} of {each.client}", next(iter(like.values()))
        if each.channel not in ONCE_A_ROUND:
            raise ValueError(f"{each.channel}: crosses in every step, not once a round")
        if (each.client == ALL) != (each.channel == Channel.AGGREGATE) or each.client not in {*like, ALL}:
            raise ValueError(f"{who}: that is no client")
        if each.channel not in OF_ADAPTERS:
            continue
        part = {name for name in whole if (name in held) != (each.channel == Channel.TRUNK_UPDATE)}
        _require_names(f"{who}: tensors", each.tensors, dict.fromkeys(part))
        for name, tensor in each.tensors.items():
            if tensor.shape != whole[name].shape:
                raise ValueError(f"{who}: {name} is {said(tensor)} and not {said(whole[name])}")


def _require_names(what: str, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    if set(found) != set(expected):
        raise ValueError(f"{what}: {', '.join(sorted(found)) or 'none'}, where {', '.join(sorted(expected))} are")


def _require_alike(what: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name in expected.keys() | found.keys():
        if name not in found or name not in expected:
            raise ValueError(f"{what}: {name} is {'missing' if name in expected else 'of no layer'}")
        if (found[name].shape, found[name].dtype) != (expected[name].shape, expected[name].dtype):
            raise ValueError(f"{what}: {name} is {said(found[name])} and not {said(expected[name])}")


def _require_moments(what: str, state: OptimizerState, adapter: Mapping[str, Tensor]) -> None:
    """Each parameter has both moments or none."""
    named = {name.rpartition("/")[0] for name in state.moments}
    expected = {f"{name}/{moment}": adapter[name] for name in named & adapter.keys() for moment in MOMENTS}
    _require_alike(what, state.moments, expected)
