"""`produce interests`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import MAX_LOST_SHARE, EncoderVersionOption, MaxLostShareOption, StoreOption
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def interests(
    impressions: Annotated[
        Path,
        typer.Option(
            help="The whole log so far (Parquet or CSV): impression_id, user_id, product_id, event_timestamp, clicked."
        ),
    ],
    encoder_version: EncoderVersionOption = None,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", "--again", help="Write every version again, those that are up to date too."),
    ] = False,
    max_lost_share: MaxLostShareOption = MAX_LOST_SHARE,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Compute each user's interest from clicks: one version of the user after every click.

    A version uses the clicks up to its own, and the vectors and tags that the products had when they were clicked. A
    second run over the same log adds nothing; a longer or corrected log adds the versions that differ.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.behaviour.interests import STEP, make_interests

    settings, now = config.load(store), datetime.now(UTC)
    reads = [schema.EMBEDDING_TABLE, schema.TAGS_TABLE]
    with run_log.record_run(settings, STEP, now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("process clicks", total=None)
        summary = make_interests(
            settings,
            impressions,
            encoder_version=encoder_version,
            recompute=recompute,
            now=choose_created_timestamp(settings, [schema.INTEREST_TABLE], now),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            table_format=table_format,
            max_lost_share=max_lost_share,
        )
        run.set_model(summary.encoder_version)
        run.add_counts(
            added=summary.added, known=summary.already_stored, withdrawn=summary.withdrawn, clicks=summary.clicks
        )
    typer.echo(summary)
