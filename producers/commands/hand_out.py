"""`produce hand-out`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption


def hand_out(
    out: Annotated[Path, typer.Option(dir_okay=False, help="Parquet file to write.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="Checkpoint: products that it has encoded are left out.", show_default="all products"),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Write the catalogue, pictures included, as a file for a machine that only encodes.

    There: python -m producers.encoders.run --encoder DIR --catalogue FILE --out PARTS. Back here: produce commit.
    """
    from producers.embeddings.remote_jobs import export_todo

    version, has_images = None, True
    if encoder is not None:
        from producers.encoders import load

        model = load(encoder, device="cpu")
        version, has_images = model.version, model.has_images
    with console.console.status("write catalogue"):
        rows, unread = export_todo(config.load(store), out, encoder_version=version, has_images=has_images)
    typer.echo(f"{out}: {rows:,} products to encode" + (f", {unread:,} pictures could not be read" if unread else ""))
