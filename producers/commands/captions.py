"""`produce captions`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def captions(
    encoder: Annotated[
        str,
        typer.Option(
            help="A checkpoint with a language head: `produce encoder --objectives contrastive,words,language`."
        ),
    ],
    store: StoreOption = None,
) -> None:
    """Write a selling line for every picture, for merchants to start from, except those that this captioner has seen.

    Unusable pictures go to the quarantine table with their reason.
    """
    from feature_repo import run_log
    from producers.captions.run import caption_catalogue

    opened, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(opened, "captions", now=now, reads=[schema.CATALOGUE_TABLE]) as run,
        console.make_progress_bar() as bar,
    ):
        task = bar.add_task("write captions", total=None)
        done = caption_catalogue(
            opened,
            encoder,
            now=now,
            progress=lambda so_far, total: bar.update(task, completed=so_far, total=total),
        )
        run.set_model(done.captioner_version)
        run.add_counts(written=done.written, known=done.known, without_picture=done.without_picture)
        run.add_quarantined(done.unusable)
    typer.echo(done)
