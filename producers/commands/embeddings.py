"""`produce embeddings`."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


class Engine(StrEnum):
    """Where products are encoded: on this machine, or on a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


def embeddings(
    encoder: Annotated[
        str,
        typer.Option(help="A CLIP, Chinese-CLIP, SigLIP or sentence-encoder checkpoint: a directory or a hub name."),
    ],
    accept_changed: Annotated[
        bool,
        typer.Option(
            "--accept-changed", help="Continue although the encoder of this name has changed since the last run."
        ),
    ] = False,
    encoder_version: Annotated[
        str | None,
        typer.Option(help="The version that the checkpoint must have; another one is refused.", show_default="any"),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="This machine, or the Ray cluster named by `offline_store.ray` (if unset, a local one)."),
    ] = Engine.LOCAL,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written and encoded, and write nothing.")
    ] = False,
    store: StoreOption = None,
) -> None:
    """Compute vectors of every product's image and title that this encoder has not encoded yet.

    Unusable images go to the quarantine table with the reason; the product then has a vector of its title only.
    """
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.embeddings.estimate import estimate_embeddings
    from producers.embeddings.run import embed_catalogue

    settings = config.load(store)
    if dry_run:
        typer.echo("dry run, nothing is written; the run would do:")
        typer.echo(
            estimate_embeddings(settings, encoder, accept_changed=accept_changed, encoder_version=encoder_version)
        )
        return
    address = settings.raw["offline_store"].get("ray") or "local"
    with console.make_progress_bar() as bar:
        task = bar.add_task("encode products", total=None)
        summary = embed_catalogue(
            settings,
            encoder,
            now=choose_created_timestamp(settings, [schema.EMBEDDING_TABLE], datetime.now(UTC)),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            accept_changed=accept_changed,
            encoder_version=encoder_version,
            ray=address if engine is Engine.RAY else None,
        )
    typer.echo(summary)
