"""`produce codes`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import EncoderVersionOption, StoreOption


def codes(
    levels: Annotated[int, typer.Option(min=1, max=8, help="Number of codes in an ID, coarse to fine.")] = 3,
    size: Annotated[
        int | None,
        typer.Option(
            min=2, max=65_536, help="Number of codes in each level.", show_default="by catalogue size, up to 256"
        ),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a new codebook and encode every product with it.")
    ] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Write all rows again, those that are up to date too.")
    ] = False,
    max_collisions: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest accepted share of products that share their ID.")
    ] = 0.5,
    min_entropy: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Smallest accepted usage entropy of a level; 1 if all codes are used equally."
        ),
    ] = 0.7,
    max_error: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest accepted unexplained share of the vectors' variance, which is reported in any case.",
            show_default="any",
        ),
    ] = None,
    encoder_version: EncoderVersionOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the training.")] = 0,
    store: StoreOption = None,
) -> None:
    """Give every product a semantic ID: codes of its fused vector, coarse to fine, for rankers to use as categories.

    New products are encoded with the stored codebook. If a codebook fails one of the limits, nothing is written and
    the command exits with 1. By default the limits are on collisions and on the usage of the codes.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.codes.codebook import read_newest_training
    from producers.codes.run import QualityGates, code_products

    settings, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(settings, "codes", now=now, reads=[schema.EMBEDDING_TABLE]) as run,
        console.console.status("compute codes"),
    ):
        summary = code_products(
            settings,
            encoder_version=encoder_version,
            levels=levels,
            size=size,
            retrain=retrain,
            recompute=recompute,
            gates=QualityGates(max_collisions, min_entropy, max_error),
            seed=seed,
            now=choose_created_timestamp(settings, [schema.CODES_TABLE], now, others=read_newest_training(settings)),
        )
        run.set_model(summary.codebook_version)
        run.add_counts(added=summary.added, known=summary.known)
    typer.echo(summary)
