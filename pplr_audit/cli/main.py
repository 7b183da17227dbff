"""The command line: parse, call, print. What it calls is imported where it is called, so that help is instant."""

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pplr_audit import __version__
from pplr_audit.cli import option_values as values
from pplr_audit.cli.compare_runs import compare
from pplr_audit.cli.exit_codes import ExitCodes
from pplr_audit.cli.listing import Kind
from pplr_audit.cli.printing import chatter_aside, console, print_findings, print_json, print_line
from pplr_audit.cli.streams import flushed, not_printed, open_streams
from pplr_audit.data.files.scratch import sweep
from pplr_audit.errors import InputError, visible
from pplr_audit.scenario.paths import expanded
from pplr_audit.training import threads as threads_

if TYPE_CHECKING:
    pass

_FORMATS = "Any of html, md and json, with commas (default: html,md)."


# Arguments are described in the commands' own words (hidden=True leaves them out of a second list): of what typer 0.20
# would print about them, click 8.5 loses the help and a stray backslash is left.
app = typer.Typer(
    cls=ExitCodes,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command ``pplr-audit``. Its output is written before its exit code is decided."""
    threads_.wait_asleep()  # before any command imports torch
    open_streams()
    sweep()
    code: int | str | None = None
    try:
        app()
    except SystemExit as ended:
        code = ended.code
    refused = flushed(sys.stdout)
    if refused is not None:
        code = code or 1
        if refused.errno != errno.EPIPE:  # a reader that has seen enough needs no message
            typer.echo(not_printed(refused), err=True)
    flushed(sys.__stderr__)
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pplr-audit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Measure what leaks when a language model is fine-tuned as a federated recommender the PPLR way."""


def _default(says: str, default: object) -> Any:
    """An option whose help names its default (typer 0.20 would leave a stray backslash before it)."""
    return typer.Option(help=f"{says} (default: {default}).", show_default=False)


Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override one field. May be repeated.")
]
Out = Annotated[Path | None, typer.Option(help="The run directory (default: runs/NAME-HASH).")]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N", show_default=False,
        help="Number of threads (default: that with which the run began; at its beginning, as many as the model can use"
        " and the machine has free). Another number changes the last digits of figures.",
    ),
]  # fmt: skip


ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor", metavar="NAME", show_default=False,
        help="processes: several trainings, clients or attacks at a time, each with the same number of threads, and"
        " never more threads than cores; serial: one after the other, to the same bytes (default: processes).",
    ),
]  # fmt: skip


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", hidden=True)],
    settings: Settings = None,
    out: Out = None,
    threads: Threads = None,
    executor: ExecutorName = "processes",
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done, with time and disk, and do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings document and nothing else.")] = False,
) -> None:
    """Train, attack, score, report. The same command continues a run that was stopped.

    SCENARIO is the name of a shipped scenario (see: pplr-audit list scenarios) or a YAML file. What it asks (audit,
    defenses, report, rivals) may change from call to call: the run goes on in the same directory, and nothing that is
    there is trained or attacked again.
    """
    chosen, number, folder = values.loaded(scenario, settings), values.threads(threads), values.folder(out)
    values.require_executor(executor)
    with chatter_aside():
        from pplr_audit import pipeline as audit
        from pplr_audit.runs import progress
        from pplr_audit.training import executor as executors

        shown = progress.to(sys.stderr)
        if plan:
            document = audit.plan(chosen, folder, shown, number, executors.executor(executor))
        else:
            result = audit.run(chosen, folder, shown, number, executors.executor(executor))
    if not plan:
        print_findings(result, as_json)
    elif as_json:
        print_json(document)
    else:
        from pplr_audit.report.terminal.plan import plan_table

        console().print(plan_table(document), markup=False, highlight=False)


@app.command()
def train(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", hidden=True)],
    settings: Settings = None,
    out: Out = None,
    threads: Threads = None,
    executor: ExecutorName = "processes",
    as_json: Annotated[bool, typer.Option("--json", help="Print run, utility and costs, and nothing else.")] = False,
) -> None:
    """Train and measure what is recommended, without any attack. Run and attack go on from there without training.

    SCENARIO is the name of a shipped scenario (see: pplr-audit list scenarios) or a YAML file. No report is written:
    one without findings would read as if nothing leaked.
    """
    chosen = values.loaded(scenario, settings)
    values.require_executor(executor)
    with chatter_aside():
        from pplr_audit import pipeline as audit
        from pplr_audit.runs import progress
        from pplr_audit.training import executor as executors

        made = executors.executor(executor)
        result = audit.train(chosen, values.folder(out), progress.to(sys.stderr), values.threads(threads), made)
    if as_json:
        print_json(result.document)
        return
    from pplr_audit.report.terminal.training import training_tables

    for table in training_tables(result.document):
        console().print(table, markup=False, highlight=False)
    typer.echo(visible(str(result.directory)))


@app.command()
def attack(
    directory: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", metavar="NAME", help="Add this attack, or 'NAME={setting: value}'. May be repeated."),
    ] = None,
    cuts: Annotated[
        list[str] | None,
        typer.Option("--cut", metavar="FRONT,BACK", help="Add this cut, or all of them: all. May be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="audit.B=C", help="Ask this of the run from now on. May be repeated."),
    ] = None,
    threads: Threads = None,
    executor: ExecutorName = "processes",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings document and nothing else.")] = False,
) -> None:
    """Attack a trained run, without training. What it has found already stays; findings and report get the rest.

    RUN is the directory of a run whose training is finished. Without options, what its scenario asks for and is
    missing or failed is done. With --attack alone the attack is added at all cuts of the run, with --cut alone all
    attacks of the run at that cut. What was added belongs to the run from then on. With --set audit.FIELD=VALUE
    another question takes the place of the run's; cells of the former one stay on disk and out of the report.
    """
    from pplr_audit.cli import attack_options

    more = attack_options.from_options(attacks or (), cuts or ())
    values.require_executor(executor)
    with chatter_aside():
        from pplr_audit import pipeline as audit
        from pplr_audit.runs import progress
        from pplr_audit.training import executor as executors

        folder, shown = expanded(directory, "RUN"), progress.to(sys.stderr)
        made = executors.executor(executor)
        result = audit.attack(folder, more, shown, values.threads(threads), settings or (), made)
    print_findings(result, as_json)


@app.command("import")
def import_(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", hidden=True)],
    out: Annotated[Path | None, typer.Option(help="The directory for answers and findings; required.")] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", metavar="NAME", help="This attack, or 'NAME={setting: value}'; required. Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings document and nothing else.")] = False,
) -> None:
    """Attack a recording of another system. The same command continues what was stopped.

    RECORDING is a folder with recording.json; docs/recordings.md says what stands there.
    """
    from pplr_audit.cli import attack_options

    more, target = attack_options.from_options(attacks or (), ()), values.required_folder(out)
    if more is None or more.attacks is None:
        raise InputError("--attack: give at least one attack (see: pplr-audit list attacks)")
    with chatter_aside():
        from pplr_audit import pipeline as audit
        from pplr_audit.runs import progress

        folder, shown = expanded(recording, "RECORDING"), progress.to(sys.stderr)
        result = audit.import_recording(folder, target, more.attacks, shown)
    print_findings(result, as_json)


@app.command()
def data(
    path: Annotated[str, typer.Argument(metavar="PATH", hidden=True)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="A field of the scenario's data section. May be repeated."),
    ] = None,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="Leave out users' histories and titles.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON and nothing else.")] = False,
) -> None:
    """Show what a data set contains and how it was read.

    That is: which column became what, users, items, lengths, times, attributes, titles, and three users' histories.

    PATH is a folder, a file in it, a zip, or synthetic. Name the reader, its columns or a filter by --set, as in
    --set 'data.reader={table: {user: uid, item: pid}}' or --set data.core=5.
    """
    from pplr_audit.cli import describe_data as inspection
    from pplr_audit.runs import progress

    found = inspection.inspect(path, settings or (), progress.to(sys.stderr), examples=not no_examples)
    if as_json:
        print_json(found)
        return
    from pplr_audit.report.terminal.data import overview_table

    console().print(overview_table(found), markup=False, highlight=False)


@app.command()
def costs(
    model: Annotated[str, typer.Argument(metavar="MODEL", hidden=True)],
    link: Annotated[str, _default("Bandwidth, such as 100kbit/s, 20Mbit, 1Gbit, 2.5MB/s", "20Mbit")] = "20Mbit",
    rtt: Annotated[str, _default("Round trip to the server, such as 20ms or 0.5s", "20ms")] = "20ms",
    client_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Mark the cuts that fit into it, such as 8GB or 512MiB.")
    ] = None,
    batch: Annotated[int, _default("Sequences in a training step", 16)] = 16,
    tokens: Annotated[int, _default("Positions of a sequence, its title and padding included", 512)] = 512,
    samples: Annotated[int, _default("Training samples of a client", 1024)] = 1024,
    title: Annotated[int, _default("Tokens of a generated title", 16)] = 16,
    rank: Annotated[int, _default("Rank of LoRA", 8)] = 8,
    precision: Annotated[str, _default("float32, bfloat16 or float16", "float32")] = "float32",
    back: Annotated[int, _default("Blocks behind, at every row of the table", 1)] = 1,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="model.lora.targets, model.lora.dropout, model.beams, training.optimizer or training.local_epochs;"
            " of encoders also model.recformer.train or data.history. May be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every cut as JSON and nothing else.")] = False,
) -> None:
    """Compute what each cut costs a client, without weights.

    That is: parameters, memory, arithmetic, traffic and time on a link. A cut leaves the first k blocks and the last m
    blocks of the model on the client.

    MODEL is a folder with config.json, tiny-llama, or a well-known model such as llama-7b, llama-70b, mistral-7b or
    gpt2 (see: pplr-audit list models).
    """
    from pplr_audit.cli import units

    speed = units.bandwidth(link, "--link"), units.duration(rtt, "--rtt")
    memory = None if client_memory is None else units.memory(client_memory, "--client-memory")
    with chatter_aside():
        from pplr_audit.training.costs import estimate as pricing
        from pplr_audit.training.costs.wire_time import WireSpeed

        asked = pricing.CostQuery(
            link=WireSpeed(*speed), client_memory=memory, back=back, batch=batch, tokens=tokens,
            samples=samples, title=title, rank=rank, precision=precision, settings=settings or (),
        )  # fmt: skip
        document = pricing.price(model, asked)
    if as_json:
        print_json(document)
        return
    from pplr_audit.report.terminal.costs import lines_after, lines_before, pricing_table

    for line in lines_before(document):
        print_line(line)
    console().print("", pricing_table(document), "", sep="\n", markup=False, highlight=False)
    for line in lines_after(document):
        print_line(line)


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(metavar="KIND", hidden=True)]) -> None:
    """List what there is to choose from, one line each.

    KIND is attacks, defenses, scenarios, models, readers or strategies.
    """
    from pplr_audit.cli.listing import listing
    from pplr_audit.scenario import plugins

    found = listing(kind)
    width = max(map(len, found), default=0)
    for name, description in found.items():
        typer.echo(visible(f"{name:{width}}  {description}".rstrip()))
    for package, wrong in plugins.broken_packages().items():
        typer.echo(visible(f"{package}: {wrong}"), err=True)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    formats: Annotated[str, typer.Option("--format", metavar="NAMES", show_default=False, help=_FORMATS)] = "html,md",
    redact: Annotated[
        bool | None,
        typer.Option(
            "--redact/--no-redact",
            show_default=False,
            help="Leave out what came from users' data, now and whenever the run's report is written again.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write into this folder, and only read the run (default: into the run).")
    ] = None,
) -> None:
    """Write the report of a run again and print the paths of the files.

    RUN is the directory of a run. What --redact leaves out stands in docs/privacy.md.
    """
    wanted = values.formats(formats)
    from pplr_audit import pipeline as audit

    for path in audit.write_report(expanded(directory, "RUN"), wanted, redact, values.folder(out)):
        typer.echo(visible(str(path)))


app.command()(compare)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Show what is installed, what is missing and how to get it.

    That is: versions, hardware, extras, plugins and disk. The exit code is 1 if the main job cannot run.
    """
    from pplr_audit.cli.doctor import examine
    from pplr_audit.runs import progress

    with chatter_aside():
        found = examine(progress.to(sys.stderr))
    if as_json:
        print_json(found.document())
    else:
        from pplr_audit.cli.doctor.show import show

        show(found, sys.stdout)
    if not found.able:
        raise typer.Exit(1)
