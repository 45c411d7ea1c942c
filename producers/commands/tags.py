"""`produce tags`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import EncoderVersionOption, StoreOption
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def tags(
    labels: Annotated[
        Path,
        typer.Option(help="Parquet or CSV: product_id, tag, value, and optionally group (one for each design)."),
    ],
    encoder_version: EncoderVersionOption = None,
    abstain: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Store a tag as unknown if its probability is lower than this.")
    ] = 0.5,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Write all rows again, those that are up to date too.")
    ] = False,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Tag every product with child age, child gender, category and any further tag, learned from labelled products.

    The values of child_age are the stages of `child_age_stages` in feature_store.yaml; those of child_gender are boy,
    girl and unisex; other tags may have any values. Further tags are stored in the column `further_tags`.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.tags.run import tag_products

    settings, now = config.load(store), datetime.now(UTC)
    with run_log.record_run(settings, "tags", now=now, reads=[schema.EMBEDDING_TABLE, schema.CATALOGUE_TABLE]) as run:
        summary = tag_products(
            settings,
            labels,
            encoder_version=encoder_version,
            abstain=abstain,
            recompute=recompute,
            now=choose_created_timestamp(settings, [schema.TAGS_TABLE, schema.TAG_PREDICTIONS_TABLE], now),
            table_format=table_format,
            track=lambda fits, total: console.track_progress(fits, "fit taggers", total),
        )
        run.set_model(summary.tagger_version)
        run.add_counts(tagged=summary.rows, predictions=summary.predictions, labels_refused=summary.refused)
    typer.echo(
        f"{summary.tagger_version}: {summary.rows} rows added to product_tags, {summary.predictions} to "
        f"tag_predictions; learned from {summary.labels} labels on vectors of {summary.encoder_version}; "
        f"{summary.refused} labels quarantined"
    )
    for reason in summary.reasons:
        typer.echo(f"  refused {reason}")
    if summary.further_tags:
        typer.echo(f"  further tags: {', '.join(summary.further_tags)}")
    for tag in summary.unlearned:
        typer.echo(f"{tag}: not tagged, because the training split has fewer than two of its labels")
