"""`produce tags`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console, settings
from feature_repo.console import StoreOption


def tags(
    labels: Annotated[
        Path,
        typer.Option(help="Parquet or CSV: product_id, tag, value, optionally group (of one design)."),
    ],
    encoder_version: Annotated[
        str | None, typer.Option(help="Whose vectors to use.", show_default="the newest")
    ] = None,
    abstain: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="A label less probable than this is stored as unknown.")
    ] = 0.5,
    store: StoreOption = None,
) -> None:
    """Tag every product with child age, child gender and category, learned from labelled ones."""
    from producers.tags import tag_products

    done = tag_products(
        settings.load(store),
        labels,
        encoder_version=encoder_version,
        abstain=abstain,
        now=datetime.now(UTC),
        track=lambda fits: console.track(fits, "fit taggers"),
    )
    typer.echo(
        f"{done.tagger_version}: {done.rows} rows added to product_tags, {done.predictions} to tag_predictions; "
        f"learned from {done.labels} labels on vectors of {done.encoder_version}; {done.refused} labels quarantined"
    )
    for tag in done.unlearnt:
        typer.echo(f"{tag}: not tagged, the training split shows fewer than two of its labels")
