"""`produce tags`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
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
    from feature_repo import run_log
    from producers.tags.run import tag_products

    opened, now = config.load(store), datetime.now(UTC)
    with run_log.record_run(opened, "tags", now=now, reads=[schema.EMBEDDING_TABLE, schema.CATALOGUE_TABLE]) as run:
        done = tag_products(
            opened,
            labels,
            encoder_version=encoder_version,
            abstain=abstain,
            now=now,
            track=lambda fits, total: console.track_progress(fits, "fit taggers", total),
        )
        run.set_model(done.tagger_version)
        run.add_counts(tagged=done.rows, predictions=done.predictions, labels_refused=done.refused)
    typer.echo(
        f"{done.tagger_version}: {done.rows} rows added to product_tags, {done.predictions} to tag_predictions; "
        f"learned from {done.labels} labels on vectors of {done.encoder_version}; {done.refused} labels quarantined"
    )
    for tag in done.unlearnt:
        typer.echo(f"{tag}: not tagged, the training split shows fewer than two of its labels")
