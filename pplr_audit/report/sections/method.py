"""Section on the method: how it was measured, what was not, and everything needed to do it again."""

import json
from collections import Counter
from collections.abc import Sequence

from pplr_audit.report.blocks.content import Block, Cell, Facts, Fold, Items, Section, Table, Text, labels, numbers
from pplr_audit.report.words.quantities import count, duration, percent, several, size
from pplr_audit.report.words.vocabulary import KNOWLEDGE, STATUS, groups_words, text_words
from pplr_audit.runs.documents import Document

HOW = (
    "One training run is recorded and replayed for every cut; what crosses a cut is what a live link carries.",
    "An attack sees the channels of its adversary and what that adversary knows. Its guess is sealed before the truth "
    "is opened to score it.",
    "A finding is above its baseline if it is above each thing that it is compared with: chance, where that is exactly "
    "known (an area of one half, a rate equal to the false-alarm rate), what popularity or its like gives for the same "
    "users, and the attack's control, the mean of several draws in which there is nothing to find. All of them must "
    "hold; estimates are compared user by user, with their own error. The number called baseline is chance, or else "
    "the most of the others.",
    "Intervals are 95%, by resampling users; they are conditional on one training run. A value of which an interval of "
    "a difference reaches down to 0 is called not distinguishable from what it was compared with.",
    "The strongest of many is strong by chance, too: what is called above its baseline is so with a correction for all "
    "findings of the same secret, metric and defense (step-down maximum over redrawn users; Holm's where single users "
    "are not known), so that in an audit without anything to find the chance of saying it even once is at most 2.5% "
    "for each of them. The interval beside a value is its own.",
    "Reconstruction is scored on title tokens and items, never on the public template.",
)


def method(findings: Document) -> Section:
    """The protocol in a few statements, the sizes, the states of all cells, and what was not measured."""
    run = findings["run"]
    audit, prompt = run["audit"], run["prompt"]
    facts = (
        *((("users", groups_words(groups)),) if (groups := run["data"].get("groups")) else ()),
        ("users attacked", f"{audit['victims']:,}"),
        ("rounds audited", ", ".join(map(str, audit["rounds"])) or "none"),
        ("knowledge", KNOWLEDGE.get(audit["knowledge"], audit["knowledge"])),
        *((("auxiliary text", text),) if (text := text_words(audit)) else ()),
        (
            "prompt",
            f"up to {prompt['max_tokens']} tokens; {percent(prompt['titles_cut_share'])} of the titles cut, "
            f"{percent(prompt['items_dropped_share'])} of the history items dropped to fit",
        ),
        ("findings", _states(findings["findings"])),
        *((("asked beyond the scenario", _extensions(audit["extensions"])),) if audit.get("extensions") else ()),
    )
    not_measured = run["not_measured"]
    blocks: list[Block] = [Items(HOW), Facts(facts)]
    blocks += (
        [Text("Not measured:"), Items(tuple(not_measured))]
        if not_measured
        else [Text("The run lists nothing as left unmeasured beyond the channels marked so above.")]
    )
    blocks.append(_clients(run))
    return Section("method", "How it was measured, and what was not", tuple(blocks))


def _states(rows: list[Document]) -> str:
    counts = Counter(row["status"] for row in rows)
    return ", ".join(f"{counts[status]} {words}" for status, words in STATUS.items() if counts[status]) or "none"


def _extensions(extensions: list[Document]) -> str:
    """List what was added to the run after its scenario, the oldest first."""
    said = []
    for asked in extensions:
        names = [name if isinstance(name, str) else json.dumps(name) for name in asked["attacks"] or ["all attacks"]]
        cuts = asked["cuts"] or ["all cuts"]
        pairs = ["all cuts"] if cuts == "all" else [str(cut) for cut in cuts]
        said.append(f"{', '.join(names)} at {', '.join(pairs)}")
    return "; ".join(said)


def _clients(run: Document) -> Block:
    fields = ("users", "members", "non_members", "reserve", "samples")
    rows = tuple((Cell(client["name"]), *numbers(*(f"{client[f]:,}" for f in fields))) for client in run["clients"])
    table = Table("Clients", ("client", "users", "members", "non-members", "reserve", "training samples"), rows)
    return table if len(rows) <= 12 else Fold(f"Clients ({len(rows)})", (table,))


def reproduce(findings: Document) -> Section:
    """Versions, seed, data digest, hardware, wall times."""
    run = findings["run"]
    data, hardware = run["data"], run["hardware"]
    facts = (
        ("pplr-audit", run["version"]),
        ("seed", str(run["seed"])),
        ("created", run["created"]),
        (
            "data",
            f"{data['name']}: {data['users']:,} users, {data['items']:,} items, {data['interactions']:,} interactions",
        ),
        ("data digest", data["digest"]),
        *((("data notes", _notes(data["notes"])),) if data.get("notes") else ()),
        ("model", f"{run['backbone']} with {run['recommender']}: {run['layers']} blocks, hidden size {run['hidden']}"),
        ("computed in", run.get("precision", "float32")),
        *((("model digest", run["backbone_digest"]),) if "backbone_digest" in run else ()),
        ("training", f"{run['strategy']}, {several(run['rounds'], 'round')}"),
        (
            "hardware",
            f"{hardware['cpu']}, {hardware['cores']} cores, {size(hardware['memory_bytes'])}, {hardware['platform']}",
        ),
        *((("computed with", _computed(run["compute"])),) if run.get("compute") else ()),
        *((("plugins", _plugins(run["plugins"])),) if run.get("plugins") else ()),
        ("findings", f"{count(len(findings['findings']))} rows, schema {findings['schema']}"),
    )
    times = tuple((Cell(phase), *numbers(duration(seconds))) for phase, seconds in run["seconds"].items())
    libraries = tuple(labels(name, version) for name, version in sorted(run["libraries"].items()))
    blocks: list[Block] = [Facts(facts)]
    if times:
        blocks.append(Table("Wall time by phase", ("phase", "time"), times))
    if libraries:
        blocks.append(Table("Libraries", ("library", "version"), libraries))
    return Section("reproduce", "To do it again", tuple(blocks))


def _computed(entries: Sequence[Document]) -> str:
    """Threads and processor, from which on figures are the same to the last digit; each change of them in order."""
    return "; then ".join(
        f"{several(each['threads'], 'thread')} (chosen by {each['chosen']}), {each['processor']['capability']} on"
        f" {each['processor']['model']}"
        for each in entries
    )


def _plugins(used: Sequence[Document]) -> str:
    """The names of what ran, by the package that it comes from."""
    names: dict[str, list[str]] = {}
    for each in used:
        names.setdefault(f"{each['package']} {each['version']}", []).append(each["name"])
    return "; ".join(f"{package}: {', '.join(sorted(set(own)))}" for package, own in names.items())


def _notes(notes: Document) -> str:
    """List the reader's notes on the data."""
    return "; ".join(f"{name} {value}" for name, value in notes.items())
