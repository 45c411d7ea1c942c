"""`consume drift`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption

CHECKS_PER_ALARM = 365
"""Checks among which one false alarm is expected, if --false-alarm-rate is not given."""


def drift(
    window: Annotated[str, typer.Option(help="Length of the recent window, which ends now: 7d, 12h.")] = "7d",
    before: Annotated[
        str, typer.Option(help="Length of the time before the window, with which it is compared: 28d.")
    ] = "28d",
    false_alarm_rate: Annotated[
        float,
        typer.Option(
            min=1e-5,
            max=0.1,
            help="False alarms per check if nothing changes, for all statistics together.",
            show_default="1/365, one a year for a daily check",
        ),
    ] = 1 / CHECKS_PER_ALARM,
    once_in: Annotated[
        int | None, typer.Option("--once-in", min=10, hidden=True, help="Use --false-alarm-rate.")
    ] = None,
    sample: Annotated[int, typer.Option(min=30, help="Largest number of products on each side.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and of the permutations.")] = 0,
    now: Annotated[
        str | None, typer.Option(help="Time of the check, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Check whether recent vectors, tags and codes differ from earlier ones. Exit code 1: they do.

    Thresholds come from permuting the recent and earlier products within category and newness, and hold for all
    statistics together. Exit code 3: there are too few products to compare anything.
    """
    from consumers.monitoring.drift.check import check
    from consumers.monitoring.terminal import as_json, drift_table
    from feature_repo.durations import parse_duration, parse_timestamp

    timestamp = parse_timestamp(now) if now else datetime.now(UTC)
    recent, earlier = parse_duration(window), parse_duration(before)
    result = check(
        config.load(store),
        now=timestamp,
        window=recent,
        before=earlier,
        checks_per_alarm=once_in or round(1 / false_alarm_rate),
        sample=sample,
        seed=seed,
    )
    console.print_tables(drift_table(result))
    outcome.finish_check(as_json(result), json, result.breaches, result.no_data)
