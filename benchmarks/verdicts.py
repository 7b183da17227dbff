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
from scipy.stats import norm
from simulated_audits import CLIENTS, audit, candidates, drawn, ideal

from pplr_audit.report.findings.series import above_baseline, clear_of_baseline
from pplr_audit.scoring.intervals import OF_FOLDS, widened
from pplr_audit.scoring.membership import auc_estimate, model_free_scores, tpr_at, within_groups_auc
from pplr_audit.scoring.standardized import standardized

SIDE, AUDITS, CONTROLS = 100, 200, 10
LABELS, AT = candidates(SIDE)
USERS = np.arange(2 * SIDE)


def verdicts(areas: Sequence[float], generator: np.random.Generator, controls: int) -> tuple[list[bool], ...]:
    """Of each attack whether it was above its baseline before, is so by itself, and is so corrected."""
    free = model_free_scores(generator.normal(size=(2 * SIDE, 4)), LABELS, AT, seed=int(generator.integers(2**31)))
    floor = max(0.5, within_groups_auc(free, LABELS, AT))
    scores = drawn(areas, SIDE, generator)
    seeds = generator.integers(2**31, size=len(scores)).tolist()
    before = [
        auc_estimate(values, LABELS, USERS, seed=seed, groups=AT, draws=500).low > floor
        for values, seed in zip(scores, seeds, strict=True)
    ]
    rows = audit(scores, generator, controls=controls)
    return before, [clear_of_baseline(row) for row in rows], [above_baseline(row) for row in rows]


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
        found = [verdicts(areas, generator, controls) for _ in range(audits)]
        # Where there is a leak, whether it was found; where there is none, whether anything was.
        said = [[each[0] if areas[0] > 0.5 else any(each) for each in three] for three in found]
        figures[name] = dict(zip(("before", "by itself", "corrected"), np.mean(said, axis=0).tolist(), strict=True))
        if areas[0] > 0.5:
            figures[name]["ideal"] = ideal(areas[0], SIDE, len(areas), controls)
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
