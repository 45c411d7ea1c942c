"""`consume consistency`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from consumers.commands import outcome
from feature_repo import config
from feature_repo.console import JsonOption, StoreOption
from feature_repo.errors import UsageError


def consistency(
    sample: Annotated[int, typer.Option(min=1, help="Keys of each view to compare.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the sample by hash: another seed, other keys.")] = 0,
    budget: Annotated[float, typer.Option(min=0, max=1, help="Share of the keys that may be at fault.")] = 0.0,
    grace: Annotated[
        str, typer.Option(help="How long a streamed row may be online before its version is offline.")
    ] = "2m",
    served: Annotated[
        Path | None,
        typer.Option(help="Parquet with the ids of what was served.", show_default="the keys offline and online"),
    ] = None,
    served_log: Annotated[
        Path | None,
        typer.Option(help="What `consume serve --log-served` wrote: judge that, each row as of when it was served."),
    ] = None,
    scan: Annotated[
        int, typer.Option(min=1, help="Online keys of a view to look at for the sample, at most.")
    ] = 1_000_000,
    now: Annotated[
        str | None, typer.Option(help="Judge as of this time, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Compare what is online with what the offline store says; exit code 1 if more than the budget differs.

    Keys are sampled by hash from both sides. Each is worked out anew from the offline store as of the last
    materialization, packed, and held against the bytes that are online: missing, extra, stale or different.
    Exit code 3 says that there was no view to judge.
    """
    from consumers.monitoring.consistency import check as views
    from consumers.monitoring.figures import as_json
    from consumers.monitoring.terminal import consistency_table
    from feature_repo.durations import parse_duration, parse_timestamp

    deployment, moment = config.load(store), parse_timestamp(now) if now else datetime.now(UTC)
    if served_log is not None:
        if served is not None:
            raise UsageError("--served and --served-log exclude each other: the one names keys, the other has rows")
        judged = views.check_served(
            deployment, served_log, sample=sample, budget=budget, now=moment, grace=parse_duration(grace)
        )
        Console().print(consistency_table(judged))
        outcome.finish_check(as_json(judged), json, judged.breaches, judged.blind)
        return
    found = views.check(
        deployment,
        sample=sample,
        seed=seed,
        budget=budget,
        now=moment,
        grace=parse_duration(grace),
        at_most=scan,
        served=served,
    )
    Console().print(consistency_table(found))
    outcome.finish_check(as_json(found), json, found.breaches, found.blind)
