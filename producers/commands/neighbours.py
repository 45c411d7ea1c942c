"""`produce neighbours`."""

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
def neighbours(
    impressions: Annotated[
        Path,
        typer.Option(
            help="The whole log so far (Parquet or CSV): impression_id, user_id, product_id, event_timestamp, clicked."
        ),
    ],
    every: Annotated[
        str, typer.Option(help="The interval at which every product gets a new version: 6h, 1d, 7d.")
    ] = "1d",
    top_k: Annotated[
        int, typer.Option("--top-k", "--nearest", min=1, max=1000, help="Number of nearest products to use.")
    ] = 20,
    encoder_version: EncoderVersionOption = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Write all rows again, those that are up to date too.")
    ] = False,
    max_lost_share: MaxLostShareOption = MAX_LOST_SHARE,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Compute click statistics of each product's most similar products, the only ones that a new product has.

    A second run over the same log adds nothing; a longer or corrected log adds the versions that differ.
    """
    from feature_repo import run_log
    from feature_repo.durations import parse_duration
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.behaviour.neighbour_state import STEP
    from producers.behaviour.neighbours import make_neighbours

    interval = parse_duration(every)
    settings, now = config.load(store), datetime.now(UTC)
    reads = [schema.EMBEDDING_TABLE, schema.CATALOGUE_TABLE, schema.TAGS_TABLE]
    with run_log.record_run(settings, STEP, now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("compare neighbours", total=None)
        summary = make_neighbours(
            settings,
            impressions,
            encoder_version=encoder_version,
            interval=interval,
            top_k=top_k,
            recompute=recompute,
            now=choose_created_timestamp(settings, [schema.NEIGHBOURS_TABLE], now),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            table_format=table_format,
            max_lost_share=max_lost_share,
        )
        run.set_model(summary.encoder_version)
        run.add_counts(added=summary.added, known=summary.already_stored)
    typer.echo(summary)
