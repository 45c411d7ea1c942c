"""`produce import`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def import_(
    name: Annotated[str, typer.Argument(help="flipkart_1050, grocery, beibei_zh, mum_baby, movielens or abt_buy.")],
    source: Annotated[Path, typer.Option("--from", help="Folder with the data set's own files; it is only read.")],
    output: Annotated[
        Path, typer.Option("--output", "--out", help="Folder to write; an earlier import in it is replaced.")
    ],
) -> None:
    """Convert a public data set to the tables of a shop: products, impressions, users and labels, if it has them.

    Images are not copied. OUTPUT/refused.parquet lists the refused rows and repaired values with the reason.
    """
    from producers.datasets.imports.registry import import_dataset

    typer.echo(import_dataset(name, source, output, datetime.now(UTC)))
