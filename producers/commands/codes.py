"""`produce codes`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def codes(
    levels: Annotated[int, typer.Option(min=1, max=8, help="Codes of an ID, coarse to fine.")] = 3,
    size: Annotated[
        int | None, typer.Option(min=2, max=65_536, help="Codes a level.", show_default="by the catalogue, up to 256")
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a new codebook and code every product with it.")
    ] = False,
    max_collisions: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of products whose ID another one has too.")
    ] = 0.5,
    min_entropy: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Smallest usage entropy of a level: 1 if all codes are used alike.")
    ] = 0.7,
    max_error: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest share of the vectors' variance left unexplained.")
    ] = 0.6,
    encoder_version: Annotated[
        str | None, typer.Option(help="Whose vectors to use.", show_default="the newest")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    store: StoreOption = None,
) -> None:
    """Give every product a semantic ID: codes of its fused vector, coarse to fine, that a ranker takes as categories.

    New products are coded by the codebook that is there. Nothing is written, and the command ends with 1, where the
    codes tell products apart too badly.
    """
    from feature_repo import run_log
    from producers.codes.run import QualityGates, code_products

    opened, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(opened, "codes", now=now, reads=[schema.EMBEDDING_TABLE]) as run,
        console.console.status("code products"),
    ):
        done = code_products(
            opened,
            encoder_version=encoder_version,
            levels=levels,
            size=size,
            retrain=retrain,
            gates=QualityGates(max_collisions, min_entropy, max_error),
            seed=seed,
            now=now,
        )
        run.set_model(done.codebook_version)
        run.add_counts(added=done.added, known=done.known)
    typer.echo(done)
