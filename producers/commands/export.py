"""`produce export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    encoder: Annotated[
        str,
        typer.Option(
            help="A checkpoint of `produce encoder`, or CLIP, Chinese-CLIP or SigLIP: a directory or a hub name."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "--out", help="Folder of the Triton model repository to write; an earlier export is replaced."
        ),
    ],
    format: Annotated[str, typer.Option(help="The format; only onnx.")] = "onnx",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Shop folder whose products.parquet has the images and titles to check the towers with.",
            show_default="random ones",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the random probes.")] = 0,
) -> None:
    """Export both towers as ONNX in a Triton model repository; their outputs have unit length.

    The export fails if a tower's vectors differ from those of torch: the cosine must be at least 0.9999 for every
    probe. Needs the extra `export`.
    """
    from producers.learning.export import export_encoder

    typer.echo(export_encoder(encoder, output, format=format, data=data, seed=seed))
