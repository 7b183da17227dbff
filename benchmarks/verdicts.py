"""How often something is called above its baseline: where there is nothing, and where there is a leak of known size.

Audits are made of scores alone: five clients, as many members as non-members, attacks whose scores are drawn. Each is
judged as a run judges its membership findings (`MembershipTruth`, `comparisons`, `with_verdicts`), and as they once
were: the interval's low end above the more of one half and the AUC of a model-free classifier, each attack by itself.
Beside them stands the ideal test. It knows the variance of the statistic where there is nothing, and the level that
each of the attacks is due. Then the rate at 10 % false alarms where clients' models differ in level, pooled as scores
are and standardized; and how often the check by the model-free classifier warns of fair coins.
"""

from collections.abc import Sequence

import numpy as np
from measuring import arguments, machine, table, write
from scipy.special import ndtri
from scipy.stats import norm, rankdata

from pplr_audit.audit.truth.comparisons import comparisons, influences, listed
from pplr_audit.audit.truth.membership import MembershipTruth
from pplr_audit.report.findings.series import above_baseline, clear_of_baseline
from pplr_audit.runs.verdicts import with_verdicts
from pplr_audit.scoring.intervals import OF_FOLDS, widened
from pplr_audit.scoring.membership import auc_estimate, model_free_scores, tpr_at, within_groups_auc
from pplr_audit.scoring.standardized import standardized
from pplr_audit.scoring.verdicts import ALPHA
from pplr_audit.threat_model.attack import Guess
from pplr_audit.threat_model.view import dealt

SIDE, CLIENTS, AUDITS, CONTROLS = 100, 5, 200, 10
LABELS, AT = np.repeat([0, 1], SIDE), np.tile(np.arange(CLIENTS), 2 * SIDE // CLIENTS)
USERS = np.arange(2 * SIDE)
BY_ROW = [dict(enumerate(each.tolist())) for each in (USERS, AT, LABELS)]
TRUTH = MembershipTruth(*BY_ROW, features=dict.fromkeys(range(2 * SIDE), (0.0,)))


def audit(areas: Sequence[float], generator: np.random.Generator, controls: int) -> tuple[list[bool], ...]:
    """Of each attack whether it was above its baseline before, is so by itself, and is so corrected."""
    free = model_free_scores(generator.normal(size=(2 * SIDE, 4)), LABELS, AT, seed=int(generator.integers(2**31)))
    floor = max(0.5, within_groups_auc(free, LABELS, AT))
    before, cells = [], []
    for number, area in enumerate(areas):
        values = generator.normal(size=2 * SIDE) + LABELS * norm.ppf(area) * 2**0.5
        seed = int(generator.integers(2**31))
        before.append(auc_estimate(values, LABELS, USERS, seed=seed, groups=AT, draws=500).low > floor)
        score = scored(values)
        crossed = (dealt([str(each) for each in AT], generator) for _ in range(controls))
        found = comparisons(score, [scored(values[each]) for each in crossed])
        row = {
            "secret": "membership", "metric": "auc", "defense": "none", "status": "ok", "attack": str(number),
            "value": score.estimate.value, "ci": [score.estimate.low, score.estimate.high], "detail": {"mode": "loss"},
            "baseline": 0.5, "comparisons": listed(found),
        }  # fmt: skip
        cells.append({"findings": [row], "influence": {"auc/loss": influences(score, found)}})
    rows = with_verdicts(cells, seed=int(generator.integers(2**31)))
    return before, [clear_of_baseline(row) for row in rows], [above_baseline(row) for row in rows]


def scored(values: np.ndarray):
    """The AUC of these scores as a run has it; its interval, which no verdict asks, is not drawn."""
    return TRUTH.score(Guess({"rows": USERS, "loss": values}), seed=None)[0]


def ideal(area: float, attacks: int, controls: int, audits: int = 20_000) -> float:
    """How often the ideal test finds a leak of this AUC among so many independent attacks, by simulation.

    It knows the variance within clients where there is nothing, (m + n + 1) / 12mn (Mann & Whitney, *Ann. Math.
    Statist.* 18, 1947), and the level that each is due (Šidák, *JASA* 62, 1967); draws of a control are as many more
    areas where there is nothing.
    """
    generator, users = np.random.default_rng(0), SIDE // CLIENTS
    won = np.zeros(audits)
    for _ in range(CLIENTS):
        members = generator.normal(size=(audits, users)) + norm.ppf(area) * 2**0.5
        ranks = rankdata(np.concatenate([members, generator.normal(size=(audits, users))], axis=1), axis=1)
        won += (ranks[:, :users].sum(1) - users * (users + 1) / 2) / users**2 / CLIENTS
    deviation = ((2 * users + 1) / (12 * users**2) / CLIENTS) ** 0.5
    needed = -ndtri(1 - (1 - ALPHA) ** (1 / attacks))
    found = (won - 0.5) / deviation >= needed
    if controls:
        control = 0.5 + deviation * generator.normal(size=audits) / controls**0.5
        found &= (won - control) / deviation / (1 + 1 / controls) ** 0.5 >= needed
    return float(found.mean())


def rates(audits: int, generator: np.random.Generator) -> tuple[float, float]:
    """The mean rate at 10 % false alarms, pooled as scores are and standardized, where .60 is true in each client."""
    shift, raw, aligned = norm.ppf(0.6) - norm.ppf(0.1), [], []
    for _ in range(audits):
        scores = generator.normal(size=2 * SIDE) + shift * LABELS + 3 * generator.normal(size=CLIENTS)[AT]
        raw.append(tpr_at(scores, LABELS, 0.1))
        aligned.append(tpr_at(standardized(scores, LABELS, AT), LABELS, 0.1))
    return float(np.mean(raw)), float(np.mean(aligned))


def warned(audits: int, generator: np.random.Generator) -> float:
    """How often the model-free interval leaves out one half though coins are fair."""
    told = 0
    for number in range(audits):
        free = model_free_scores(generator.normal(size=(2 * SIDE, 4)), LABELS, AT, seed=number)
        found = widened(auc_estimate(free, LABELS, USERS, seed=number, groups=AT, draws=500), OF_FOLDS)
        told += not found.low <= 0.5 <= found.high
    return told / audits


def main() -> None:
    chosen = arguments(__doc__ or "", repeats=1)
    at, audits = machine(), 4 if chosen.quick else AUDITS
    generator = np.random.default_rng(0)
    asked: dict[str, tuple[list[float], int]] = {
        "nothing, 1 attack": ([0.5], 0), "nothing, 10 attacks": ([0.5] * 10, 0), "nothing, 24 attacks": ([0.5] * 24, 0),
        f"nothing, 1 attack, {CONTROLS} draws of its control": ([0.5], CONTROLS),
        "AUC .60, 1 attack": ([0.6], 0), "AUC .65 among 10 attacks": ([0.65] + [0.5] * 9, 0),
        f"AUC .60, 1 attack, {CONTROLS} draws of its control": ([0.6], CONTROLS),
    }  # fmt: skip
    figures, lines = {}, []
    for name, (areas, controls) in asked.items():
        found = [audit(areas, generator, controls) for _ in range(audits)]
        # Where there is a leak, whether it was found; where there is none, whether anything was.
        said = [[each[0] if areas[0] > 0.5 else any(each) for each in verdicts] for verdicts in found]
        figures[name] = dict(zip(("before", "by itself", "corrected"), np.mean(said, axis=0).tolist(), strict=True))
        if areas[0] > 0.5:
            figures[name]["ideal"] = ideal(areas[0], len(areas), controls)
        told = [f"{share:.3f}" for share in figures[name].values()]
        lines.append([name, *told, *([] if areas[0] > 0.5 else ["at most .025"])])
    raw, aligned = rates(audits, generator)
    alarms = warned(audits, generator)
    text = f"{2 * SIDE} candidates, {CLIENTS} clients, {audits} audits a row: the share in which one was above.\n\n"
    text += table(["what there is", "before", "by itself", "corrected", "ideal test"], lines)
    text += f"\nRate at 10 % false alarms, .60 in each client, levels apart by 3 deviations: pooled {raw:.2f}, "
    text += f"standardized {aligned:.2f}.\n\nFair coins that the model-free check warns of: {alarms:.3f}.\n"
    figures |= {"rates": {"pooled": raw, "standardized": aligned}, "warned": alarms}
    write("verdicts", "Verdicts: false alarms and power", text, figures, at, chosen.results)


if __name__ == "__main__":
    main()
