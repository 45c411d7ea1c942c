"""`produce catalogue`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import settings
from feature_repo.console import StoreOption


def catalogue(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row per product.")],
    store: StoreOption = None,
) -> None:
    """Check the products of a shop and add what is new or changed to the catalogue.

    Bad rows go to the quarantine table with their reason; the rest goes on.
    """
    from feature_repo.tables.quarantine import counts
    from producers import ledger
    from producers.catalogue import take_in

    opened, now = settings.load(store), datetime.now(UTC)
    with ledger.run(opened, "catalogue", now=now) as run:
        taken = take_in(opened, products, now)
        run.counts(new=taken.new, changed=taken.changed, unchanged=taken.unchanged)
        run.quarantined(counts(taken.refused))
    typer.echo(taken)
