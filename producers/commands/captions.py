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
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Write all rows again, those that are up to date too.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Write a draft of a selling line for every image that this captioner has not captioned yet.

    Unusable images go to the quarantine table with the reason.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.captions.run import caption_catalogue

    settings, now = config.load(store), datetime.now(UTC)
    reads = [schema.CATALOGUE_TABLE]
    with run_log.record_run(settings, "captions", now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("write captions", total=None)
        summary = caption_catalogue(
            settings,
            encoder,
            recompute=recompute,
            now=choose_created_timestamp(settings, [schema.CAPTION_TABLE], now),
            progress=lambda count, total: bar.update(task, completed=count, total=total),
        )
        run.set_model(summary.captioner_version)
        run.add_counts(written=summary.written, known=summary.known, without_picture=summary.without_image)
        run.add_quarantined(summary.unusable)
    typer.echo(summary)
