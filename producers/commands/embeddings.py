"""`produce embeddings`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from feature_repo import console, settings
from feature_repo.console import StoreOption


def embeddings(
    encoder: Annotated[
        str,
        typer.Option(help="A CLIP, Chinese-CLIP, SigLIP or sentence-encoder checkpoint: a directory or a hub name."),
    ],
    store: StoreOption = None,
) -> None:
    """Turn every product's image and title into vectors, except those that this encoder has seen before.

    Unusable pictures go to the quarantine table with their reason; such a product goes on with its title.
    """
    from producers import ledger
    from producers.embeddings import embed_catalogue

    opened, now = settings.load(store), datetime.now(UTC)
    with ledger.run(opened, "embeddings", now=now, reads=["product_catalogue"]) as run, console.progress_bar() as bar:
        task = bar.add_task("encode products", total=None)
        done = embed_catalogue(
            opened,
            encoder,
            now=now,
            progress=lambda so_far, total: bar.update(task, completed=so_far, total=total),
        )
        run.uses(done.encoder_version)
        run.counts(encoded=done.encoded, known=done.known)
        run.quarantined(done.unusable)
    typer.echo(done)
