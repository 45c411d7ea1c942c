"""`produce commit`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import StoreOption


def commit(
    parts: Annotated[Path, typer.Option(file_okay=False, help="Folder that `producers.encoders.run` wrote.")],
    store: StoreOption = None,
) -> None:
    """Add the vectors that another machine has encoded: parts that are whole, and of those what is not known yet."""
    from feature_repo import run_log
    from producers.embeddings import existing_rows, remote_jobs

    opened, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(opened, existing_rows.STEP, now=now, reads=[schema.CATALOGUE_TABLE]) as run,
        console.console.status("commit parts"),
    ):
        done = remote_jobs.commit_parts(opened, parts, now)
        run.set_model(done.run.encoder_version)
        run.add_counts(encoded=done.added, known=done.known, outdated=done.outdated)
        run.add_quarantined(done.unusable)
    typer.echo(done)
