"""`produce export`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


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
    with_verifier: Annotated[
        bool,
        typer.Option("--with-verifier", help="Export the newest pair verifier of this encoder, too."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the random probes.")] = 0,
    store: StoreOption = None,
) -> None:
    """Export an encoder as ONNX in a Triton model repository, with all that a reader without torch needs.

    The export fails if vectors differ from those of torch: the cosine must be at least 0.9999 for every probe. Needs
    the extra `export`.
    """
    from feature_repo.pairs.verifier import FOLDER
    from producers.learning.export import export_encoder

    verifiers = config.load(store).local / FOLDER if with_verifier else None
    typer.echo(export_encoder(encoder, output, format=format, data=data, seed=seed, verifiers=verifiers))
