"""`produce images`."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console


class ImageStoreFormat(StrEnum):
    """Formats of a store that images can be copied to. LMDB is one memory-mapped file that many processes read."""

    LMDB = "lmdb"


def images(
    products: Annotated[Path, typer.Option(help="Parquet or CSV with one row for each product, as for `catalogue`.")],
    output: Annotated[
        Path,
        typer.Option("--output", "--out", file_okay=False, help="Folder for the images and for products.parquet."),
    ],
    to: Annotated[ImageStoreFormat, typer.Option(help="The format of the image store.")] = ImageStoreFormat.LMDB,
) -> None:
    """Copy the images of a products table into one LMDB, each content once, and write a table that refers to them.

    Give the written table to `produce catalogue`: it recognises images by their keys and does not read them again.
    """
    from producers.catalogue.pack import pack_images

    with console.make_progress_bar() as bar:
        task = bar.add_task("copy images", total=None)
        summary = pack_images(products, output, datetime.now(UTC), lambda rows: bar.update(task, completed=rows))
    typer.echo(summary)
