"""`produce embeddings`."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption


class Engine(StrEnum):
    """Where encoding is done."""

    LOCAL = "local"
    RAY = "ray"


def embeddings(
    encoder: Annotated[
        str,
        typer.Option(help="A CLIP, Chinese-CLIP, SigLIP or sentence-encoder checkpoint: a directory or a hub name."),
    ],
    accept_changed: Annotated[
        bool,
        typer.Option("--accept-changed", help="Go on where the encoder of this name is another than in the last run."),
    ] = False,
    engine: Annotated[
        Engine, typer.Option(help="This machine, or the Ray cluster that `offline_store.ray` names (else one here).")
    ] = Engine.LOCAL,
    store: StoreOption = None,
) -> None:
    """Turn every product's image and title into vectors, except those that this encoder has seen before.

    Unusable pictures go to the quarantine table with their reason; such a product goes on with its title.
    """
    from producers.embeddings.run import embed_catalogue

    opened = config.load(store)
    address = opened.raw["offline_store"].get("ray") or "local"
    with console.make_progress_bar() as bar:
        task = bar.add_task("encode products", total=None)
        done = embed_catalogue(
            opened,
            encoder,
            now=datetime.now(UTC),
            progress=lambda so_far, total: bar.update(task, completed=so_far, total=total),
            accept_changed=accept_changed,
            ray=address if engine is Engine.RAY else None,
        )
    typer.echo(done)
