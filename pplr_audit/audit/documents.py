"""The two documents of a run: its findings and the evidence behind them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pplr_audit import __version__
from pplr_audit.audit.attacking import Audited
from pplr_audit.audit.extension import Extension
from pplr_audit.audit.parts import Outcome, findings_of, is_main, measured
from pplr_audit.audit.plan import NOTHING, Plan
from pplr_audit.runs.documents import WITHOUT_TRUNK_UNKNOWN
from pplr_audit.runs.environment import hardware, libraries
from pplr_audit.scenario.schema import Scenario
from pplr_audit.threat_model.adversaries import channels_of
from pplr_audit.threat_model.attack import also_reads
from pplr_audit.threat_model.channels import Channel
from pplr_audit.training.job import Job
from pplr_audit.training.rounds import RoundLog
from pplr_audit.training.schedule import steps_per_round
from pplr_audit.training.spec import TrainingSpec
from pplr_audit.training.strategies.protocol import Mixing
from pplr_audit.training.utility.validation import left_out, never_stopping


def findings_document(
    job: Job, outcome: Outcome, audited: Audited, extensions: Sequence[Extension], manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """``findings.json``.

    Args:
        job: the run's own training.
        extensions: what was asked of the run beyond its scenario.
        manifest: the run's own, with the seconds of this call.
    """
    scenario, private, plan = job.scenario, job.private, audited.plan
    audit = {
        "victims": audited.victims, "candidates": len(private.candidates()),
        "audited": int(private.population.audited.sum()), "rounds": list(plan.rounds),
        "knowledge": scenario.audit.knowledge, "auxiliary": scenario.audit.auxiliary, "history": scenario.data.history,
        "extensions": [extension.model_dump(mode="json") for extension in extensions],
    }  # fmt: skip
    run = {**_run(job, outcome, manifest), "audit": audit, "not_measured": not_measured(scenario, plan)}
    return {
        "schema": "pplr-audit/findings/1", "run": run, **findings_of(audited, seed=scenario.seed),
        **measured(outcome, seed=scenario.seed),
    }  # fmt: skip


def training_document(job: Job, outcome: Outcome, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A findings document's run, utility and costs; its schema is its own, so that nobody takes it for an audit."""
    rows = measured(outcome, seed=job.scenario.seed)
    return {"schema": "pplr-audit/training/1", "run": _run(job, outcome, manifest), **rows}


def _run(job: Job, outcome: Outcome, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the training: model, data and clients."""
    scenario, private, model = job.scenario, job.private, job.model
    data, population, groups = private.dataset, private.population, private.population.groups()
    clients = [
        {
            "name": name,
            "users": int((population.client_of == at).sum()),
            **{group: int(((population.client_of == at) & users).sum()) for group, users in groups.items()},
            "samples": private.samples_of(name),
        }
        for at, name in enumerate(population.clients)
    ]
    dropped = [model.prompts.items_dropped_share(s.history) * len(s.history.values) for s in private.samples.values()]
    return {
        "name": scenario.name,
        "seed": scenario.seed,
        "created": manifest["created"],
        "version": __version__,
        "backbone": Path(model.backbone).name,
        "backbone_digest": model.digest,
        "recommender": scenario.model.recommender,
        "precision": model.precision,
        "strategy": scenario.training.label,
        "failed_rivals": [{"strategy": _called(spec, job), "reason": why} for spec, why in outcome.broken.items()],
        "never_stop": never_stopping(scenario, private),
        "rounds": scenario.training.rounds,
        "training": _recipe(job),
        "layers": model.layers,
        "hidden": int(model.whole.model.config.hidden_size),
        "cut": {"front": model.parts.front, "back": model.parts.back},
        "clients": clients,
        "data": {
            "name": data.name, "users": len(data.users), "items": len(data.catalogue),
            "interactions": len(data.items.values), "digest": data.digest, "notes": dict(data.notes),
            "groups": {group: int(users.sum()) for group, users in groups.items()},
            "left_out": left_out(private),
        },
        "prompt": {
            "max_tokens": scenario.model.max_tokens,
            "titles_cut_share": model.prompts.titles_cut_share,
            "items_dropped_share": sum(dropped) / sum(len(s.history.values) for s in private.samples.values()),
        },
        "libraries": libraries(),
        "hardware": hardware(),
        "compute": list(manifest.get("compute", ())),
        "plugins": list(manifest.get("plugins", ())),
        "seconds": {**dict(manifest.get("seconds", {})), **outcome.own.seconds},
    }  # fmt: skip


def _recipe(job: Job) -> dict[str, Any]:
    """Describe a round of local training: what an update says depends on it."""
    training, model = job.scenario.training, job.model
    steps = [steps_per_round(len(samples), training) for samples in job.private.samples.values()]
    lora = job.scenario.model.lora
    targets = {name.split(".lora_A")[0].rpartition(".")[2] for name in model.initial if ".lora_A" in name}
    adapter = {"rank": lora.rank, "alpha": lora.alpha, "dropout": lora.dropout, "targets": sorted(targets)}
    return {
        "optimizer": training.optimizer, "learning_rate": training.learning_rate, "batch_size": training.batch_size,
        "local_epochs": training.local_epochs, "steps": [min(steps), max(steps)], "averaging": training.averaging,
        "adapter": adapter if targets else None,
    }  # fmt: skip


def _called(spec: TrainingSpec, job: Job) -> str:
    """Return a training's label, with its seed where that is another than the run's."""
    return spec.label if spec.seed == job.spec.seed else f"{spec.label}, seed {spec.seed}"


def evidence_document(logs: Sequence[RoundLog], audited: Audited) -> dict[str, Any]:
    """``evidence.json``: what the pictures and the side-by-side histories are drawn from.

    The curves are those of the trainings that stand in ``findings``.
    """
    shown = [spec.name for spec in audited.plan.attacked if is_main(spec, audited.plan)]
    curves = [curve for name in shown for cell in audited.cells[name] for curve in cell["roc"]]
    training = [
        {"round": log.round, "client": client, "loss": loss}
        | ({"metric": log.metrics[client]} if client in log.metrics else {})
        for log in logs
        for client, loss in log.losses.items()
    ]
    balance = [
        {"round": log.round, "clients": list(log.clients), "matrix": log.mixing.matrix.tolist()} | _terms(log.mixing)
        for log in logs
        if log.clients
    ]
    return {
        "schema": "pplr-audit/evidence/1", "examples": list(audited.examples), "roc": curves, "training": training,
        "balance": balance,
    }  # fmt: skip


def _terms(mixing: Mixing) -> dict[str, Any]:
    """Return the terms of the dynamic balance in a round; empty for strategies that have none."""
    terms = {"weights": mixing.speed, "similarity": mixing.similarity, "status": mixing.status}
    return {name: values.tolist() for name, values in terms.items() if values is not None}


def not_measured(scenario: Scenario, plan: Plan) -> list[str]:
    """Name what this audit says nothing about, in words for the report."""
    read = {channel for cell in plan.cells for channel in {cell.channel} | also_reads(plan.attack(cell))}
    seen = {channel for adversary in scenario.audit.adversaries for channel in channels_of(adversary)}
    unread = sorted((str(c) for c in seen - read), key=[str(c) for c in Channel].index)
    lines = []
    if unread:
        lines.append(f"Channels that the adversaries see and no attack of this run reads: {', '.join(unread)}.")
    if any(why == NOTHING for _, why in plan.impossible):
        lines.append(WITHOUT_TRUNK_UNKNOWN)
    if not plan.hijacked:
        lines.append("Active adversaries, who also choose what they send.")
    alone = "Clients who collude" if scenario.audit.knowledge != "auxiliary" else "Several clients who collude"
    lines += [
        f"{alone}.",
        "Other training runs: every interval is conditional on this one (one seed)."
        if not scenario.audit.seeds
        else "Other training runs: intervals are conditional on this one, but for those over seeds.",
        "Attacks that are not in the list of findings: a low figure bounds the tested attacks, not what is possible.",
    ]
    return lines
