"""`produce import`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def import_(
    name: Annotated[
        str, typer.Argument(help="abt_buy, beibei_zh, flipkart_1050, grocery, movielens, muge or mum_baby.")
    ],
    source: Annotated[Path, typer.Option("--from", help="Folder with the data set's own files; it is only read.")],
    output: Annotated[
        Path, typer.Option("--output", "--out", help="Folder to write; an earlier import in it is replaced.")
    ],
    split: Annotated[
        str | None, typer.Option(help="Only this split of muge: train, valid or test.", show_default="all")
    ] = None,
) -> None:
    """Convert a public data set to the tables of a shop: products, impressions, users and labels, if it has them.

    Images are not copied. OUTPUT/refused.parquet lists the refused rows and repaired values with the reason.
    """
    from producers.datasets.imports.registry import import_dataset

    typer.echo(import_dataset(name, source, output, datetime.now(UTC), split))
