"""The answer says what was measured, with its interval and baseline, and no more than that."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from pplr_audit.report.sentences.answer import answer
from pplr_audit.report.sentences.claims import Sentence

Json = dict[str, Any]
Make = Callable[..., Json]


def sentence(document: Json, topic: str) -> Sentence:
    """The one sentence on a topic."""
    (found,) = [s for s in answer(document) if s.topic == topic]
    return found


def only(document: Json, *rows: Json) -> Json:
    """The document with no other findings than these."""
    return {**document, "findings": list(rows)}


def at(k: int) -> Json:
    """The cut of a channel that depends on k alone."""
    return {"front": k, "back": None}


def test_a_small_audit_is_answered_in_three_sentences(findings: Json) -> None:
    assert [s.topic for s in answer(findings)] == ["Reading histories", "Recognizing members", "Cost and utility"]


def test_a_leak_is_told_at_the_shallowest_and_deepest_cut_with_interval_and_baseline(findings: Json) -> None:
    told = sentence(findings, "Reading histories")
    assert told.verdict == "above"
    assert "only the embeddings (k=0)" in told.text
    assert "names 99.5% [98.4%, 100%] of a history's items at the first guess (baseline 1.2%" in told.text
    assert "1 of 5 blocks in front (k=1, the cut that ran), 95.2%" in told.text
    assert "4 of 5 blocks in front (k=4), 64.8% [58.1%, 71.5%] (baseline 1.2%)" in told.text
    assert "Keeping more blocks on the client lowers it from k=" in told.text
    assert "and does not end it" in told.text


def test_a_value_whose_interval_reaches_the_baseline_is_not_called_a_leak(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut=at(k), value=0.05, ci=[0.01, 0.09], baseline=0.04) for k in (0, 4)]
    told = sentence(only(findings, *rows), "Reading histories")
    assert told.verdict == "not_above"
    assert told.text.count("not distinguishable from the baseline 4.0%") == 2
    assert "No tested attack exceeded the baseline; one that was not tested may." in told.text


def test_a_leak_that_ends_with_depth_is_told_as_what_the_tested_attacks_did(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut=at(0)), a_finding(cut=at(4), value=0.02, ci=[0.0, 0.04])]
    told = sentence(only(findings, *rows), "Reading histories")
    assert told.verdict == "above"
    assert "At the deepest cut measured no tested attack exceeded the baseline." in told.text


def test_a_leak_that_falls_and_ends_says_where(findings: Json, a_finding: Make) -> None:
    leaks = ((0, 0.9), (1, 0.6), (2, 0.6), (3, 0.02), (4, 0.02))
    rows = [a_finding(cut=at(k), value=v, ci=[max(v - 0.02, 0), v + 0.02]) for k, v in leaks]
    told = sentence(only(findings, *rows), "Reading histories").text
    assert "From k=3 on no tested attack exceeded the baseline." in told
    assert "Keeping more blocks on the client lowers it from k=0 to k=1 and from k=1 to k=3." in told


def test_a_leak_at_a_middle_depth_alone_is_not_denied(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut=at(k), value=v, ci=[v - 0.02, v + 0.02]) for k, v in ((0, 0.02), (2, 0.9), (4, 0.02))]
    told = sentence(only(findings, *rows), "Reading histories").text
    assert "Neither" not in told
    assert "No depth exceeds" not in told
    assert "It rises from k=0 to k=2." in told
    assert "At the deepest cut measured no tested attack exceeded the baseline." in told


def test_a_leak_that_peaks_in_between_is_not_hidden_by_the_ends(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut=at(k), value=v, ci=[v - 0.01, v + 0.01]) for k, v in ((0, 0.2), (3, 0.9), (4, 0.2))]
    assert "The most is read at k=3: 90.0%" in sentence(only(findings, *rows), "Reading histories").text


def test_a_depth_without_a_value_is_named(findings: Json, a_finding: Make, no_finding: Make) -> None:
    rows = [a_finding(cut=at(0)), no_finding("failed", "out of memory", cut=at(4))]
    told = sentence(only(findings, *rows), "Reading histories")
    assert "No attack gave a value at k=4 (failed: out of memory); this does not mean 0." in told.text


def test_a_stronger_channel_that_does_not_depend_on_k_is_counted_at_every_k(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut=at(k), value=0.3, ci=[0.25, 0.35]) for k in (0, 4)]
    rows.append(a_finding(cut=None, channel="client_update", attack="rows", value=0.8, ci=[0.7, 0.9]))
    told = sentence(only(findings, *rows), "Reading histories")
    assert "80.0% [70.0%, 90.0%]" in told.text
    assert "attack rows on client_update" in told.text


def test_a_high_value_under_a_high_baseline_does_not_hide_a_real_leak(findings: Json, a_finding: Make) -> None:
    rows = [
        a_finding(cut=at(1), attack="template", value=0.5, ci=[0.4, 0.6], baseline=0.5),
        a_finding(cut=at(1), attack="ridge", value=0.4, ci=[0.35, 0.45], baseline=0.01),
    ]
    assert "attack ridge" in sentence(only(findings, *rows), "Reading histories").text


def test_nothing_but_not_applicable_is_unmeasured_with_its_reason(findings: Json, no_finding: Make) -> None:
    rows = [no_finding("not_applicable", "more tokens than hidden dimensions", cut=at(k)) for k in (0, 1)]
    told = sentence(only(findings, *rows), "Reading histories")
    assert told.verdict == "unmeasured"
    assert "2 not applicable" in told.text
    assert "This does not mean 0." in told.text
    assert "more tokens than hidden dimensions" in told.text


def test_an_audit_without_membership_attacks_says_so(findings: Json, a_finding: Make) -> None:
    told = sentence(only(findings, a_finding()), "Recognizing members")
    assert told.verdict == "unmeasured"
    assert "was part of this audit, so it says nothing about it" in told.text


def test_reading_in_serving_is_told_apart(findings: Json) -> None:
    text = sentence(findings, "Reading histories").text
    assert "When the trained model serves: 99.5% [98.4%, 100%] (baseline 1.2%) at k=0 and 68.0%" in text
    assert "at k=3." in text


def test_what_the_adversary_had_to_know_is_said(findings: Json, a_finding: Make) -> None:
    told = sentence(findings, "Reading histories").text
    assert (
        "What the adversary had to know besides, at most: the client's layers as the server last balanced them" in told
    )
    rows = [a_finding(knowledge="base"), a_finding(knowledge="auxiliary", cut=at(2))]
    told = sentence(only(findings, *rows), "Reading histories").text
    assert "the public base weights only" in told
    assert "texts of a colluding client" in told


def test_the_next_item_is_told_as_the_most_of_all_channels(findings: Json, label_rows: list[Json]) -> None:
    told = sentence(only(findings, *label_rows), "Reading the next item")
    assert told.verdict == "above"
    assert "With k=1 blocks in front and m=1 at the back, the cut that ran, the server names 89.0% " in told.text
    assert "attack bidirectional on back_gradients" in told.text
    assert "Of the 15 cuts (k, m) with a value the most is read at k=0, m=0, 96.0%" in told.text
    assert "the least at k=1, m=3, 81.0% [76.0%, 85.0%]" in told.text
    assert "front_activations 81.0% [76.0%, 85.0%] (baseline 2.0%) by ridge and back_gradients 89.0%" in told.text
    assert "strongest of 3 attacks" in told.text


def test_the_next_item_read_behind_alone_is_told_by_m(findings: Json, label_rows: list[Json]) -> None:
    rows = [row for row in label_rows if row["attack"] == "label_match"]
    told = sentence(only(findings, *rows), "Reading the next item").text
    assert "With 0 of 5 blocks at the back (m=0) on the client, the server names 96.0%" in told
    assert "1 of 5 blocks at the back (m=1, the cut that ran), 76.0%" in told
    assert "4 of 5 blocks at the back (m=4), 16.0%" in told
    assert "k=" not in told


def test_one_channel_at_its_baseline_does_not_hide_the_other(findings: Json, label_rows: list[Json]) -> None:
    silent = [{**row, "value": 0.02, "ci": [0.0, 0.05]} if row["attack"] == "ridge" else row for row in label_rows]
    rows = [row for row in silent if row["attack"] != "bidirectional" and row["status"] == "ok"]
    told = sentence(only(findings, *rows), "Reading the next item")
    assert told.verdict == "above"
    assert "front_activations 2.0% [0%, 5.0%] (not distinguishable from the baseline 2.0%) by ridge" in told.text


def test_where_no_channel_leaks_no_tested_attack_exceeded_the_baseline(findings: Json, label_rows: list[Json]) -> None:
    rows = [{**row, "value": 0.02, "ci": [0.0, 0.05]} for row in label_rows if row["metric"] == "label_hit@1"]
    told = sentence(only(findings, *[row for row in rows if row["status"] == "ok"]), "Reading the next item")
    assert told.verdict == "not_above"
    assert "It is as much at each of the 15 cuts (k, m) with a value." in told.text
    assert "No tested attack exceeded the baseline; one that was not tested may." in told.text


def test_cuts_where_all_attacks_failed_are_named(findings: Json, label_rows: list[Json], no_finding: Make) -> None:
    rows = [row for row in label_rows if row["attack"] == "bidirectional" and row["metric"] == "label_hit@1"]
    rows[0] = no_finding(
        "failed", "out of memory", **{key: rows[0][key] for key in ("cut", "secret", "metric", "attack")}
    )
    told = sentence(only(findings, *rows), "Reading the next item").text
    assert "Of the 14 cuts" in told
    assert "No attack gave a value at k=0, m=0 (failed: out of memory); this does not mean 0." in told
    assert "k=5" not in told


def test_a_secret_of_which_this_version_knows_nothing_has_its_sentence(findings: Json, a_finding: Make) -> None:
    told = sentence(only(findings, a_finding(secret="shoe size")), "Reading the shoe size")
    assert "93.0%" in told.text


def test_membership_names_the_strongest_mode_and_its_rate_at_few_false_alarms(findings: Json) -> None:
    told = sentence(findings, "Recognizing members")
    assert "0.655 [0.601, 0.708] (baseline 0.512; attack loss (reference) on model_output)" in told.text
    assert "finds 27.0% [18.0%, 36.0%] of the members at 10% false alarms" in told.text
    assert "strongest of 2 attacks" in told.text


def test_membership_at_its_baseline_is_not_distinguishable(findings: Json, a_membership: Make) -> None:
    told = sentence(only(findings, a_membership("auc", 0.54, 0.48, 0.6, 0.51, "threshold")), "Recognizing members")
    assert told.verdict == "not_above"
    assert "not distinguishable from the baseline 0.510" in told.text


def test_each_further_secret_and_defense_has_its_sentence(findings: Json, a_finding: Make) -> None:
    rows = [
        a_finding(),
        a_finding(secret="label", metric="label_hit@1", channel="back_gradients", cut={"front": None, "back": 1}),
        a_finding(defense="quantize(bits=8)", value=0.5, ci=[0.4, 0.6]),
    ]
    document = only(findings, *rows)
    assert "names 93.0%" in sentence(document, "Reading the next item").text
    assert "50.0% [40.0%, 60.0%]" in sentence(document, "Defense quantize(bits=8)").text
    assert "50.0%" not in sentence(document, "Reading histories").text


@pytest.mark.parametrize(
    ("ci", "words"),
    [
        ([0.114, 0.142], "above popularity"),
        ([0.09, 0.16], "overlapping with popularity"),
        ([0.01, 0.02], "below popularity"),
    ],
)
def test_utility_is_compared_in_words_that_respect_the_intervals(findings: Json, ci: list[float], words: str) -> None:
    findings["utility"][0].update(value=sum(ci) / 2, ci=ci)
    assert words in sentence(findings, "Cost and utility").text


def test_missing_utility_and_costs_are_said_to_be_missing(findings: Json) -> None:
    told = sentence({**findings, "utility": [], "costs": []}, "Cost and utility").text
    assert "were not computed" in told
    assert "Utility was not measured." in told


def test_the_answer_never_promises_privacy(findings: Json, a_finding: Make, label_rows: list[Json]) -> None:
    for rows in (findings["findings"], [], [a_finding(value=0.01, ci=[0.0, 0.02])], label_rows):
        text = " ".join(s.text for s in answer({**findings, "findings": rows})).lower()
        assert "is private" not in text
        assert "is safe" not in text


def test_it_says_at_which_depths_a_leak_falls_and_from_where_on_it_no_longer_does(
    findings: Json, a_finding: Make
) -> None:
    values = [0.9, 0.89, 0.6, 0.61, 0.59]
    rows = [a_finding(cut=at(k), value=v, ci=[v - 0.04, v + 0.04]) for k, v in enumerate(values)]
    told = sentence(only(findings, *rows), "Reading histories").text
    assert "lowers it from k=0 to k=2 and does not end it. Beyond k=2 there is no further visible change." in told
    values = [0.6, 0.9, 0.6, 0.3, 0.3]
    rows = [a_finding(cut=at(k), value=v, ci=[v - 0.04, v + 0.04]) for k, v in enumerate(values)]
    told = sentence(only(findings, *rows), "Reading histories").text
    assert "lowers it from k=1 to k=2 and from k=2 to k=3 and does not end it. It rises from k=0 to k=1." in told


def test_depths_that_differ_by_noise_alone_are_rarely_called_a_fall(findings: Json, a_finding: Make) -> None:
    """Thirty depths of one leak, with intervals of the noise: five audits in a hundred may say so, and not one more."""
    generator, fell, many = np.random.default_rng(0), 0, {**findings, "run": {**findings["run"], "layers": 32}}
    for _ in range(200):
        drawn = generator.normal(0.6, 0.02, 30)
        rows = [a_finding(cut=at(k), value=v, ci=[v - 0.0392, v + 0.0392]) for k, v in enumerate(drawn.tolist())]
        fell += "does not measurably lower it" not in sentence(only(many, *rows), "Reading histories").text
    assert fell <= binom.ppf(0.999, 200, 0.05)


def test_the_texts_that_an_attack_learned_from_are_part_of_what_it_had_to_know(findings: Json, a_finding: Make) -> None:
    rows = [a_finding(cut=at(k), knowledge="front", detail={"auxiliary": "public"}) for k in (0, 4)]
    told = sentence(only(findings, *rows), "Reading histories").text
    assert (
        "and, to learn from, random histories over another catalogue" in told.split("had to know besides, at most:")[1]
    )
