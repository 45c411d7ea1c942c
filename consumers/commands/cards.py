"""`consume cards`."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from consumers.commands import outcome
from consumers.commands.drift import CHECKS_PER_ALARM
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption
from feature_repo.errors import UsageError
from feature_repo.files.atomic_write import prepare_output_files


def cards(
    output: Annotated[Path, typer.Option(help="Folder for the pages: index.html, and one for each view.")],
    lift: Annotated[
        Path | None,
        typer.Option(help="Figures that `consume lift --json` wrote.", show_default="lifts are left out"),
    ] = None,
    max_age: Annotated[str, typer.Option(help="Allowed age of a view's newest event: 90m, 6h, 2d.")] = "1d",
    now: Annotated[
        str | None, typer.Option(help="Time of the cards, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Write a page for each feature view: meaning, owner, producer, cost, coverage, freshness, drift and lift.

    Meaning and owner come from Feast's registry; the figures are measured now, except the lift (--lift). Needs the
    extra `rank`.
    """
    from consumers.cards.card import CardList
    from consumers.cards.collect import collect_cards
    from consumers.cards.lift_file import read_lift
    from consumers.cards.pages import INDEX, CardContext, write_pages
    from consumers.report_json import report_to_json
    from feature_repo.durations import parse_duration, parse_timestamp

    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: a file is there; name a folder")
    prepare_output_files(output / INDEX)
    settings, timestamp = config.load(store), parse_timestamp(now) if now else datetime.now(UTC)
    figures = read_lift(lift) if lift else None
    with console.make_progress_bar() as bar:
        task = bar.add_task("cards", total=None)
        collected = collect_cards(
            settings,
            now=timestamp,
            max_age=parse_duration(max_age),
            checks_per_alarm=CHECKS_PER_ALARM,
            lift=figures,
            progress=lambda name: bar.update(task, description=f"cards: {name}"),
        )
    pages = write_pages(collected, output, CardContext(settings.project, settings.file, timestamp, version("vitrine")))
    outcome.write_figures(report_to_json(CardList(timestamp, collected)), json)
    typer.echo(f"pages:   {len(pages)}, begin with {output / INDEX}")
