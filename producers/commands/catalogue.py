"""`produce catalogue`."""

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def catalogue(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row per active product.")],
    partial: Annotated[
        bool,
        typer.Option("--partial", help="The table is a part of what is active: nothing is gone for not being in it."),
    ] = False,
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="Believe that more than half of the active products are gone.")
    ] = False,
    rehash: Annotated[
        bool,
        typer.Option("--rehash", help="Read every picture anew, also where size and time of change are as they were."),
    ] = False,
    store: StoreOption = None,
) -> None:
    """Compare the day's products with what is known, and add what is new or changed to the catalogue.

    Bad rows go to the quarantine table with their reason; the rest goes on.
    """
    from feature_repo import run_log
    from feature_repo.offline.quarantine import count_by_reason
    from producers.catalogue import ingest as catalogue

    opened, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(opened, catalogue.STEP, now=now, reads=[schema.CATALOGUE_TABLE]) as run,
        ExitStack() as shown,
    ):
        bar = console.make_progress_bar()
        task = bar.add_task("compare products", total=None)

        def progress(rows: int) -> None:
            if not bar.live.is_started:  # a file that cannot be read ends in one line, and in no bar
                shown.enter_context(bar)
            bar.update(task, completed=rows)

        taken = catalogue.take_in(
            opened,
            products,
            now,
            partial=partial,
            allow_shrink=allow_shrink,
            rehash=rehash,
            progress=progress,
        )
        run.add_counts(new=taken.new, changed=taken.changed, unchanged=taken.unchanged, gone=taken.gone)
        run.add_quarantined(count_by_reason(taken.refused))
    typer.echo(taken)
