"""Costs of each cut on a terminal: the assumptions, a row a front, and what fits in one sentence."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pplr_audit.errors import visible
from pplr_audit.report.words.quantities import count, duration, percent, ranges, size
from pplr_audit.runs.documents import Document

if TYPE_CHECKING:
    from rich.table import Table

ROWS = 18
"""Fronts shown of a deep model; the document has every cut."""


def lines_before(document: Document) -> Iterator[str]:
    """The model, and all that the numbers rest on."""
    model, given = document["model"], document["assumed"]
    yield visible(
        f"{model['name']}: {model['model_type']}, {model['layers']} blocks of width {model['hidden_size']:,}, "
        f"{count(model['parameters'])} parameters ({model['source']})"
    )
    yield (
        f"Each round {given['samples']:,} samples of {given['tokens']} positions in steps of {given['batch']}"
        + (f", {given['local_epochs']} times over" if given["local_epochs"] > 1 else "")
        + f"; {_trained(given)}, {given['optimizer']}, all in {given['precision']}. "
        f"Link {_rate(given['link_bits_per_second'])}, {given['round_trip_seconds'] * 1e3:g} ms round trip."
    )
    if model["attention_dropout"]:
        yield (
            f"This model has attention dropout (rate {model['attention_dropout']:g}), so on a CPU training keeps the "
            "matrix of scores; without dropout it would not."
        )


def _trained(given: Document) -> str:
    lora, of = f"LoRA of rank {given['rank']}", given["recformer"]
    if of is None:
        return lora
    marks = f"RecFormer's embeddings of {of['history']} items"
    return {"lora": lora, "embeddings": f"{lora} and {marks}", "all": "all weights"}[of["train"]]


def pricing_table(document: Document) -> "Table":
    """One row for each front, k; deep models are thinned out."""
    from rich import box
    from rich.table import Table

    back, limited = document["assumed"]["back"], document["assumed"]["client_memory_bytes"] is not None
    rows = _at_back(document)
    table = Table(
        title=f"What a client holds and does if it keeps the first k blocks and the last m={back}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    head = [
        "k", "share", "para-\nmeters", "trained", "memory,\ntrain", "memory,\nserve", "FLOP/\ntoken,\ntrain",
        "FLOP/\ntoken,\nserve", "wire\na round", "wait\na round",
    ]  # fmt: skip
    for name in [*head, *(["fits"] if limited else [])]:  # all within 80 characters; what is longer is never cut off
        table.add_column(name, justify="left" if name == "fits" else "right", overflow="fold")
    for row in (rows[front] for front in _selected(rows)):
        table.add_row(
            f"{row['cut']['front']}{'' if row['wire_bytes_per_step'] else '*'}",
            percent(row["client_share"]),
            count(row["frozen_parameters"]),
            count(row["adapter_parameters"]),
            size(row["training_memory_bytes"]),
            size(row["serving_memory_bytes"]),
            count(row["training_flops_per_token"]),
            count(row["client_flops_per_token"]),
            size(row["wire_bytes_per_round"]),
            duration(row["wire_seconds_per_round"]),
            *([_fits(row)] if limited else []),
        )
    return table


def lines_after(document: Document) -> Iterator[str]:
    """Yield the lines on what is the same at every front, then on what fits."""
    rows = _at_back(document)
    if len(_selected(rows)) < len(rows):
        yield f"{len(_selected(rows))} of {len(rows)} fronts; --json prints all {len(document['costs']):,} cuts."
    crossing = rows[0]
    if crossing["wire_bytes_per_step"]:
        yield (
            f"While a trunk remains, a step sends {size(crossing['wire_bytes_per_step'])} and waits "
            f"{duration(crossing['wire_seconds_per_step'])} for the link, a served request "
            f"{size(crossing['serving_wire_bytes_per_request'])} and "
            f"{duration(crossing['wire_seconds_per_request'])}, at every cut."
        )
    yield "* No trunk is left: no activations cross. A wait is the link's alone, without anyone's arithmetic."
    if document["assumed"]["client_memory_bytes"] is not None:
        yield fits_sentence(document)


def fits_sentence(document: Document) -> str:
    """Say in one sentence which fronts fit the client's memory."""
    rows, given = _at_back(document), document["assumed"]
    limit, behind = size(given["client_memory_bytes"]), f"with m={given['back']}"
    trains = [row["cut"]["front"] for row in rows if row["fits_training"]]
    serves = [row["cut"]["front"] for row in rows if row["fits_serving"]]
    if len(trains) == len(serves) == len(rows):
        return f"In {limit} every front fits {behind}, in training and in serving."
    if not serves and not trains:
        least = min(row["serving_memory_bytes"] for row in rows)
        return f"In {limit} no front fits {behind}: serving alone takes {size(least)} or more."
    if not trains:
        least = min(row["training_memory_bytes"] for row in rows)
        return f"In {limit} none can be trained {behind}, which takes {size(least)} or more; served: {_fronts(serves)}."
    return f"In {limit} a client can train {behind} at {_fronts(trains)}, and serve at {_fronts(serves)}."


def _at_back(document: Document) -> list[Document]:
    """The rows of the back that is shown, by front."""
    rows = [row for row in document["costs"] if row["cut"]["back"] == document["assumed"]["back"]]
    return sorted(rows, key=lambda row: row["cut"]["front"])


def _fits(row: Document) -> str:
    words = {(True, True): "yes", (False, True): "serve", (True, False): "train", (False, False): "no"}
    return words[row["fits_training"], row["fits_serving"]]


def _selected(rows: Sequence[Document]) -> list[int]:
    """Fronts: all of a shallow model; else the first ones, the last ones, steps between, and the last that fit."""
    deepest = len(rows) - 1
    if len(rows) <= ROWS:
        return list(range(len(rows)))
    step = next(width for width in (2, 5, 10, 20, 50, 100, deepest) if deepest / width <= ROWS - 7)
    chosen = {0, 1, 2, deepest - 1, deepest, *range(0, deepest, step)}
    for fits in ("fits_training", "fits_serving"):
        chosen |= {max((front for front, row in enumerate(rows) if row.get(fits)), default=0)}
    return sorted(chosen)


def _fronts(fronts: Sequence[int]) -> str:
    """Numbers in ranges.

    >>> _fronts([0, 1, 2, 5]), _fronts([3]), _fronts([])
    ('k=0 to 2 and 5', 'k=3', 'none')
    """
    return f"k={ranges(fronts)}" if fronts else "none"


def _rate(bits: float) -> str:
    """Bits a second.

    >>> _rate(20e6), _rate(1e9), _rate(1500)
    ('20 Mbit/s', '1 Gbit/s', '1.5 kbit/s')
    """
    for scale, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits >= scale:
            return f"{bits / scale:g} {unit}"
    return f"{bits:g} bit/s"
