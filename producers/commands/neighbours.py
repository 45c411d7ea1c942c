"""`produce neighbours`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def neighbours(
    impressions: Annotated[
        Path,
        typer.Option(
            help="The whole log so far (Parquet, CSV): impression_id, user_id, product_id, event_timestamp, clicked."
        ),
    ],
    every: Annotated[str, typer.Option(help="How often every product gets a version that knows more: 6h, 1d, 7d.")] = (
        "1d"
    ),
    k: Annotated[int, typer.Option("--nearest", min=1, max=1000, help="How many of the nearest products.")] = 20,
    encoder_version: Annotated[
        str | None, typer.Option(help="Whose vectors to use.", show_default="the newest")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Tell of each product what the most similar ones earned before: all that is known of a new one.

    A second run over the same log adds nothing, a longer log adds its new versions.
    """
    from feature_repo import run_log
    from feature_repo.durations import parse_duration
    from producers.behaviour.neighbours import make_neighbours

    step = parse_duration(every)
    opened, now = config.load(store), datetime.now(UTC)
    reads = [schema.EMBEDDING_TABLE, schema.CATALOGUE_TABLE, schema.TAGS_TABLE]
    with run_log.record_run(opened, "neighbours", now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("look at neighbours", total=None)
        done = make_neighbours(
            opened,
            impressions,
            encoder_version=encoder_version,
            every=step,
            k=k,
            now=now,
            progress=lambda so_far, total: bar.update(task, completed=so_far, total=total),
        )
        run.set_model(done.encoder_version)
        run.add_counts(added=done.added, known=done.known)
    typer.echo(done)
