"""`produce encoder`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console


def encoder(
    data: Annotated[Path, typer.Option(help="Folder whose products.parquet has titles and pictures to learn from.")],
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    pairs: Annotated[
        int, typer.Option(min=1, help="Image-text pairs to learn from, repeats included; a minute on 2 cores.")
    ] = 60_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the order and the crops.")] = 0,
) -> None:
    """Train a small image-text encoder on a catalogue, from nothing.

    The outcome is an ordinary transformers checkpoint; `produce embeddings` takes it, or any CLIP, as --encoder.
    """
    from producers.encoder import train_encoder

    with console.progress_bar() as bar:
        task = bar.add_task("train encoder", total=None)
        made = train_encoder(
            data,
            out,
            pairs_seen=pairs,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    typer.echo(
        f"{out}: learnt from {made.pairs:,} products in {made.steps:,} steps, loss {made.loss:.3f}; "
        f"{made.left_out:,} products left out, without a title or a usable picture"
    )
