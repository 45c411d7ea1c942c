"""`produce embeddings`."""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


class Engine(StrEnum):
    """Where products are encoded: on this machine, or on a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


@with_table_options
def embeddings(
    encoder: Annotated[
        str,
        typer.Option(
            help="A checkpoint of `produce encoder`, CLIP, Chinese-CLIP, SigLIP, BLIP or a sentence encoder: directory "
            "or hub name."
        ),
    ],
    accept_changed: Annotated[
        bool,
        typer.Option(
            "--accept-changed", help="Continue although the encoder of this name has changed since the last run."
        ),
    ] = False,
    encoder_version: Annotated[
        str | None,
        typer.Option(
            help="The version that the checkpoint must have; another one is refused. Only this version is written.",
            show_default="any; during an upgrade both",
        ),
    ] = None,
    impressions: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="A log of impressions: encode the products that were shown most first."),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="local: this machine; ray: the Ray cluster that `offline_store.ray` names, or a local Ray instance."
        ),
    ] = Engine.LOCAL,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written and encoded, and write nothing.")
    ] = False,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Compute vectors of every product's image and title that this encoder has not encoded yet.

    While `produce upgrade` runs, products that came since its start get vectors of both versions.

    Unusable images go to the quarantine table with the reason; the product then has a vector of its title only.
    """
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.embeddings.existing_rows import BACKFILL, STEP
    from producers.embeddings.run import EmbeddingSummary, embed_catalogue
    from producers.embeddings.served_order import list_most_served
    from producers.upgrade.both_versions import find_other_version

    settings = config.load(store)
    if dry_run:
        from producers.embeddings.estimate import estimate_embeddings  # imports torch, which takes seconds

        typer.echo("dry run, nothing is written; the run would do:")
        typer.echo(
            estimate_embeddings(settings, encoder, accept_changed=accept_changed, encoder_version=encoder_version)
        )
        return
    address = settings.raw["offline_store"].get("ray") or "local"

    def embed(checkpoint: str, **options: Any) -> EmbeddingSummary:
        with console.make_progress_bar() as bar:
            task = bar.add_task("encode products", total=None)
            return embed_catalogue(
                settings,
                checkpoint,
                now=choose_created_timestamp(settings, [schema.EMBEDDING_TABLE], datetime.now(UTC)),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                ray=address if engine is Engine.RAY else None,
                **options,
            )

    first = [] if impressions is None else list_most_served(settings, impressions, datetime.now(UTC), table_format)
    # A backfill may take days: under a name of its own, it does not lock out the runs of each day.
    step = STEP if encoder_version is None else BACKFILL
    summary = embed(encoder, accept_changed=accept_changed, encoder_version=encoder_version, first=first, step=step)
    typer.echo(summary)
    other = None if encoder_version else find_other_version(settings, summary.encoder_version)
    if other is None:
        return
    if other.encoder is None:
        typer.echo(f"not encoded with {other.version}, because `produce upgrade start` had no --former-encoder")
        return
    both = embed(other.encoder, accept_changed=True, encoder_version=other.version, first=first, only=other.select())
    typer.echo(both)
