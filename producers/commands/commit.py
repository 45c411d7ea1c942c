"""`produce commit`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def commit(
    parts: Annotated[Path, typer.Option(file_okay=False, help="Folder that `python -m producers.encoders.run` wrote.")],
    store: StoreOption = None,
) -> None:
    """Add the vectors that another machine encoded: complete parts only, and only rows that are not stored yet."""
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.embeddings import existing_rows, remote_jobs

    settings, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(settings, existing_rows.STEP, now=now, reads=[schema.CATALOGUE_TABLE]) as run,
        console.console.status("commit parts"),
    ):
        created = choose_created_timestamp(settings, [schema.EMBEDDING_TABLE], now)
        summary = remote_jobs.commit_parts(settings, parts, created)
        run.set_model(summary.run.encoder_version)
        run.add_counts(
            encoded=summary.added, known=summary.existing, outdated=summary.outdated, missing=summary.missing
        )
        run.add_quarantined(summary.unusable)
    typer.echo(summary)
