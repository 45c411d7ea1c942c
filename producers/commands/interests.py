"""`produce interests`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def interests(
    impressions: Annotated[
        Path,
        typer.Option(
            help="The whole log so far (Parquet, CSV): impression_id, user_id, product_id, event_timestamp, clicked."
        ),
    ],
    encoder_version: Annotated[
        str | None, typer.Option(help="Whose vectors to use.", show_default="the newest")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Write every version anew, for vectors or tags that came late.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Turn clicks into what each user is interested in: a new version of the user after every click.

    A version knows the clicks up to its own and what was known of the products when they were clicked. A second run
    over the same log adds nothing, a longer log adds its new versions.
    """
    from feature_repo import run_log
    from producers.behaviour.interests import make_interests

    opened, now = config.load(store), datetime.now(UTC)
    reads = [schema.EMBEDDING_TABLE, schema.TAGS_TABLE]
    with run_log.record_run(opened, "interests", now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("follow clicks", total=None)
        done = make_interests(
            opened,
            impressions,
            encoder_version=encoder_version,
            again=again,
            now=now,
            progress=lambda so_far, total: bar.update(task, completed=so_far, total=total),
        )
        run.set_model(done.encoder_version)
        run.add_counts(added=done.added, known=done.known, clicks=done.clicks)
    typer.echo(done)
