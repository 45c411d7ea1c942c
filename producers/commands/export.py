"""`produce export`."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    encoder: Annotated[
        str, typer.Option(help="The default encoder, or a CLIP, Chinese-CLIP or SigLIP checkpoint: directory or name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the Triton model repository; an earlier export is replaced.")],
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Shop folder with products.parquet whose pictures and titles the towers are checked with.",
            show_default="made by chance",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of probes made by chance.")] = 0,
) -> None:
    """Write both towers for other runtimes: ONNX in a Triton model repository, outputs of unit length.

    Refused if a tower's vectors are not torch's: cosine at least 0.9999 on every probe. Needs the extra `export`.
    """
    from producers.learning.export import export_encoder

    typer.echo(export_encoder(encoder, out, format=format, data=data, seed=seed))
