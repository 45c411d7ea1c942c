"""`produce catalogue`."""

from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import MAX_LOST_SHARE, MaxLostShareOption, StoreOption
from feature_repo.table_options import with_table_options
from producers.catalogue.decimal_mark import DecimalMark

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def catalogue(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row for each active product.")],
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="The table holds only a part of the active products: a missing product is not gone."
        ),
    ] = False,
    allow_shrink: Annotated[
        bool,
        typer.Option(
            "--allow-shrink", help="Accept that more than half of the active products, and at least 10, are gone."
        ),
    ] = False,
    rehash: Annotated[
        bool,
        typer.Option("--rehash", help="Read every image, even if its size and modification time are unchanged."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")] = False,
    decimal: Annotated[
        DecimalMark | None,
        typer.Option(
            help="Decimal mark of prices written as text, such as 1.299; the other mark separates thousands.",
            show_default="the mark on which all prices that show one agree",
        ),
    ] = None,
    max_lost_share: MaxLostShareOption = MAX_LOST_SHARE,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Compare the day's products with the stored ones and write new and changed ones to the catalogue.

    Invalid rows go to the quarantine table with the reason; the valid rows are used. Ids, titles, categories and brands
    that differ only in blanks, invisible characters, Unicode form or HTML entities are made equal.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from feature_repo.offline.lost_share import require_kept
    from feature_repo.offline.quarantine import count_by_reason
    from producers.catalogue.ingest import STEP, ingest_products

    settings, now = config.load(store), datetime.now(UTC)
    logged = run_log.record_run(settings, STEP, now=now, reads=[schema.CATALOGUE_TABLE])
    with nullcontext() if dry_run else logged as run, ExitStack() as stack:
        bar = console.make_progress_bar()
        task = bar.add_task("compare products", total=None)

        def show_progress(rows: int) -> None:
            """Show the number of rows read, and the bar itself from the first call on."""
            if not bar.live.is_started:  # not before the first block: an unreadable file then shows an error only
                stack.enter_context(bar)
            bar.update(task, completed=rows)

        summary = ingest_products(
            settings,
            products,
            choose_created_timestamp(settings, [schema.CATALOGUE_TABLE, schema.ACTIVE_TABLE], now),
            partial=partial,
            allow_shrink=allow_shrink,
            rehash=rehash,
            dry_run=dry_run,
            decimal=decimal,
            progress=show_progress,
            table_format=table_format,
        )
        if run is not None:
            run.add_counts(new=summary.new, changed=summary.changed, unchanged=summary.unchanged, gone=summary.gone)
            run.add_quarantined(count_by_reason(summary.refused))
    if dry_run:
        typer.echo(
            f"dry run, nothing is written; the run would add {summary.new + summary.changed:,} rows to "
            f"{schema.CATALOGUE_TABLE} and {summary.gone + summary.returned:,} to {schema.ACTIVE_TABLE}"
        )
    typer.echo(summary)
    require_kept(products, summary.list_lost(), summary.read, max_lost_share, given=summary.given)
