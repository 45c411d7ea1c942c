"""`produce hand-out`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption


def hand_out(
    output: Annotated[Path, typer.Option("--output", "--out", dir_okay=False, help="Parquet file to write.")],
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Leave out the products that this checkpoint has encoded already.", show_default="all products"
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write the products to encode, with their images, to a file for a machine that only encodes.

    On that machine run `python -m producers.encoders.run --encoder DIR --catalogue FILE --output PARTS`, then here
    `produce commit`.
    """
    from producers.embeddings.remote_jobs import export_todo

    version, has_images = None, True
    if encoder is not None:
        from producers.encoders import load

        model = load(encoder, device="cpu")
        version, has_images = model.version, model.has_images
    with console.console.status("write catalogue"):
        rows, unreadable = export_todo(config.load(store), output, encoder_version=version, has_images=has_images)
    suffix = f", {unreadable:,} images could not be read" if unreadable else ""
    typer.echo(f"{output}: {rows:,} products to encode{suffix}")
