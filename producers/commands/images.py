"""`produce images`."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console


class Form(StrEnum):
    """Where pictures can be put."""

    LMDB = "lmdb"


def images(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row per product, as for `catalogue`.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the pictures and for products.parquet.")],
    to: Annotated[Form, typer.Option(help="How they are kept.")] = Form.LMDB,
) -> None:
    """Put the pictures of a products table into one LMDB, each once, and write the table that refers to them there.

    Hand the written table to `produce catalogue`: pictures are then known by their keys, without a look at any.
    """
    from producers.catalogue.pack import pack

    with console.make_progress_bar() as bar:
        task = bar.add_task("pack pictures", total=None)
        packed = pack(products, out, datetime.now(UTC), lambda rows: bar.update(task, completed=rows))
    typer.echo(packed)
