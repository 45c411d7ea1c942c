"""`produce picture swap`."""

from pathlib import Path
from typing import Annotated

import typer


def swap(
    model: Annotated[Path, typer.Option(help="Checkpoint of Stable Diffusion 1.x or 2.x: a folder of diffusers.")],
    text_encoder: Annotated[
        str, typer.Option(help="Encoder whose text tower replaces it: Chinese-CLIP, or one of `produce encoder`.")
    ],
    output: Annotated[Path, typer.Option("--output", "--out", help="New folder for the checkpoint.")],
    project: Annotated[
        bool,
        typer.Option("--project/--no-project", help="If widths differ, add a linear projection, or fail."),
    ] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the projection's first weights.")] = 0,
) -> None:
    """Replace the text encoder of a text-to-image checkpoint, for example by a Chinese one.

    All other parts are copied byte for byte. The new encoder must be trained before pictures follow a sentence:
    `produce picture match`, then `produce picture train`.
    """
    from producers.text_to_image.swap import swap_text_encoder

    typer.echo(swap_text_encoder(model, text_encoder, output, project=project, seed=seed))
    typer.echo(f"checkpoint: {output}")
