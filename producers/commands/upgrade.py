"""`produce upgrade`: replaces the encoder in production while readers are served."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, schema
from feature_repo.console import StoreOption

if TYPE_CHECKING:
    from feature_repo.config import Settings
    from feature_repo.offline.production import Upgrade
    from producers.upgrade.versions import RunStep

app = typer.Typer(no_args_is_help=True)
LOCK = "upgrade"
"""Name in the run log, and of the lock that all of these commands take."""


@app.command()
def start(
    context: typer.Context,
    encoder: Annotated[
        str, typer.Option(help="The next encoder: a checkpoint's directory or hub name.", show_default=False)
    ],
    step: Annotated[
        list[str] | None,
        typer.Option(
            help='A command that derives rows from vectors, with its options, such as "tags --labels labels.parquet"; '
            "repeat it for each, in order."
        ),
    ] = None,
    former_encoder: Annotated[
        str | None,
        typer.Option(help="The encoder in production, to keep its rows up to date after the switch, for a rollback."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Record the next encoder, and print the cost of the upgrade. No rows are written yet."""
    from feature_repo import run_log
    from producers.embeddings.encoder_check import require_version
    from producers.embeddings.estimate import estimate_embeddings
    from producers.encoders.checkpoint_version import read_version
    from producers.upgrade import cost, machine, versions

    settings, now = config.load(store), datetime.now(UTC)
    with run_log.record_run(settings, LOCK, now=now) as run:
        before = machine.require_version(settings, now)
        if former_encoder is not None:
            require_version(former_encoder, read_version(former_encoder), before.production_version)
            former_encoder = versions.to_absolute(former_encoder)
        embeddings = estimate_embeddings(settings, encoder, accept_changed=True)
        version = embeddings.encoder_version
        run.set_model(version)
        steps = versions.parse_steps(settings, step or [], before.production_version)
        options = versions.UpgradeOptions(versions.to_absolute(encoder), former_encoder, steps)
        for arguments in versions.list_commands(options, options.encoder, version):
            _prepare_command(context, arguments)  # wrong options are found here, not after the backfill
        costs = cost.estimate(settings, embeddings, before.production_version, version)
        typer.echo(f"{before.production_version} -> {version}")
        typer.echo(f"{embeddings.images:,} images and {embeddings.titles:,} titles to encode")
        typer.echo("bytes are those of the offline tables; the online store takes about as many")
        typer.echo(cost.format_costs(costs))
        after = machine.start(settings, version, options, now=datetime.now(UTC))
    _print_state(after)


@app.command()
def status(store: StoreOption = None) -> None:
    """Print the encoder in production, the state of the upgrade, and the next command."""
    from feature_repo.offline import production
    from producers.upgrade import versions

    settings = config.load(store)
    history = production.read_history(settings.offline)
    if not history:
        typer.echo("no encoder version is recorded yet; `produce embeddings` records the first one")
        return
    for one in history[-10:]:
        other = f", {one.candidate_version} is kept beside it" if one.candidate_version else ""
        typer.echo(f"{one.created:%Y-%m-%d %H:%M:%S} UTC: {one.state}; readers get {one.production_version}{other}")
    for version in filter(None, (history[-1].production_version, history[-1].candidate_version)):
        rows = {table: versions.count_rows(settings, table, version) for table in schema.ENCODER_TABLES}
        typer.echo(f"{version}: " + ", ".join(f"{count:,} rows in {table}" for table, count in rows.items()))
    _print_state(history[-1])


@app.command()
def advance(
    context: typer.Context,
    gate: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Report of `consume gate`; required in the state shadow.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write the rows that the other version lacks, and go to the next state. After a kill run it again."""
    from producers.upgrade import machine

    _change_state(context, store, partial(machine.advance, gate=gate))


@app.command("catch-up")
def catch_up(context: typer.Context, store: StoreOption = None) -> None:
    """Write the rows that the other version lacks, and stay in the state. `produce day` ends with it."""
    from producers.upgrade import machine

    _change_state(context, store, machine.catch_up)


@app.command()
def rollback(
    context: typer.Context,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Do not first write the former encoder's rows of what came since.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Put the former encoder back into production. Rows of both are kept."""
    from producers.upgrade import machine

    _change_state(context, store, partial(machine.rollback, at_once=at_once))


@app.command()
def retire(
    grace: Annotated[
        str, typer.Option(help="Minimum time since the switch: 10m, 1h. Choose it longer than any reader's --refresh.")
    ] = "10m",
    store: StoreOption = None,
) -> None:
    """Delete the rows of the encoder that is not in production; `produce vacuum` then frees the disk."""
    from feature_repo import run_log
    from feature_repo.durations import parse_duration
    from producers.upgrade import machine

    settings = config.load(store)
    with run_log.record_run(settings, LOCK, now=datetime.now(UTC)) as run:
        deleted = machine.retire(settings, grace=parse_duration(grace), clock=lambda: datetime.now(UTC))
        run.add_counts(**deleted)
    for table, rows in deleted.items():
        typer.echo(f"{table}: {rows:,} rows deleted")
    typer.echo("the rows are deleted, online too; `produce vacuum` removes the files from the disk")


def _change_state(context: typer.Context, store: Path | None, change: Callable[..., "Upgrade"]) -> None:
    """Call a function of producers/upgrade/machine.py as a run of the run log, and print the state after it."""
    from feature_repo import run_log
    from producers.upgrade import machine

    settings = config.load(store)
    with run_log.record_run(settings, LOCK, now=datetime.now(UTC)):
        after = change(
            machine.UpgradeContext(
                settings, _make_step_runner(context, settings), clock=lambda: datetime.now(UTC), report=typer.echo
            )
        )
    _print_state(after)


def _prepare_command(context: typer.Context, arguments: Sequence[str]) -> Callable[[], None]:
    """Parse the options of a command of `produce`, and return the function that runs it in this process.

    Options before the command, such as --quiet, stay those of this process.

    Raises:
        UsageError: click's; the command does not take these arguments.
    """
    name, *options = arguments
    produce = context.find_root()
    assert isinstance(produce.command, typer.core.TyperGroup)
    command = produce.command.get_command(context, name)
    assert command is not None
    parsed = command.make_context(name, options, parent=produce)

    def run() -> None:
        with parsed:
            command.invoke(parsed)

    return run


def _make_step_runner(context: typer.Context, settings: "Settings") -> "RunStep":
    """Return a function that runs a command of `produce`, as its own run in the run log."""

    def run_step(arguments: Sequence[str]) -> None:
        typer.echo(f"produce {' '.join(arguments)}")
        _prepare_command(context, [*arguments, "--store", str(settings.file)])()

    return run_step


def _print_state(upgrade: "Upgrade") -> None:
    from producers.upgrade import machine

    typer.echo(
        f"state {upgrade.state}, readers get {upgrade.production_version}; next: {machine.describe_next(upgrade)}"
    )
