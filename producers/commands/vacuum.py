"""`produce vacuum`."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def vacuum(
    grace_hours: Annotated[
        int,
        typer.Option(
            min=0,
            max=87_600,
            help="Keep files that became unreferenced within these hours: readers may still have them open. 0 also "
            "shortens the tables' logs to their newest entries; otherwise the last 26 hours of a log stay.",
        ),
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Drop rows corrected before the retention (`retention_days`), join small files, remove unreferenced files."""
    from producers import maintenance

    settings, grace = config.load(store), timedelta(hours=grace_hours)
    if dry_run:
        typer.echo("dry run, nothing is removed; the run would report:")
    for summary in maintenance.vacuum(settings, now=datetime.now(UTC), grace=grace, dry_run=dry_run):
        typer.echo(
            f"{summary.table}: {summary.rows_dropped:,} corrected rows dropped, {summary.files_removed:,} files removed"
        )
