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
            min=0, max=87_600, help="Leave files let go within these hours: readers may still have them open."
        ),
    ] = 1,
    store: StoreOption = None,
) -> None:
    """Drop rows corrected longer ago than `retention_days`, join small files, remove files that no row lies in."""
    from producers import maintenance

    done = maintenance.vacuum(config.load(store), now=datetime.now(UTC), grace=timedelta(hours=grace_hours))
    for each in done:
        typer.echo(f"{each.table}: {each.rows_dropped:,} corrected rows dropped, {each.files_removed:,} files removed")
