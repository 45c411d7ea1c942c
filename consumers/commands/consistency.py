"""`consume consistency`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption
from feature_repo.errors import UsageError
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def consistency(
    sample: Annotated[int, typer.Option(min=1, help="Number of keys of each view to compare.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample. Another seed selects other keys.")] = 0,
    budget: Annotated[float, typer.Option(min=0, max=1, help="Share of the keys that may be faulty.")] = 0.0,
    grace: Annotated[
        str, typer.Option(help="Time for which a streamed row may be online before its version is offline: 2m.")
    ] = "2m",
    served: Annotated[
        Path | None,
        typer.Option(
            help="Parquet or CSV with the ids of served entities: sample only these.",
            show_default="sample the offline and the online keys",
        ),
    ] = None,
    served_log: Annotated[
        Path | None,
        typer.Option(help="File of `consume serve --log-served`: check its rows, each as of the time it was served."),
    ] = None,
    scan: Annotated[
        int, typer.Option(min=1, help="Largest number of online keys of a view to scan for the sample.")
    ] = 1_000_000,
    now: Annotated[
        str | None, typer.Option(help="Time of the check, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    json: JsonOption = None,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Compare online rows with the offline store. Exit code 1: more than the budget is faulty.

    Keys are sampled by hash from both sides. For each key, the row that should be online is computed again from the
    offline store as of the last materialization, packed, and compared with the online bytes. Faults are missing,
    extra, stale and different. Exit code 3: no view could be checked.
    """
    from consumers.monitoring.consistency.check import check, check_served
    from consumers.monitoring.terminal import as_json, consistency_table
    from feature_repo.durations import parse_duration, parse_timestamp

    timestamp, grace_period = parse_timestamp(now) if now else datetime.now(UTC), parse_duration(grace)
    deployment = config.load(store)
    if served_log is None:
        result = check(
            deployment,
            sample=sample,
            seed=seed,
            budget=budget,
            now=timestamp,
            grace=grace_period,
            max_keys_scanned=scan,
            served=served,
            table_format=table_format,
        )
    elif served is not None:
        raise UsageError("--served and --served-log exclude each other: --served names keys, --served-log has rows")
    else:
        result = check_served(deployment, served_log, sample=sample, budget=budget, now=timestamp, grace=grace_period)
    console.print_tables(consistency_table(result))
    outcome.finish_check(as_json(result), json, result.breaches, result.no_data)
