"""`produce index`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import EncoderVersionOption, StoreOption


def index(
    encoder_version: EncoderVersionOption = None,
    vector: Annotated[
        list[str] | None,
        typer.Option(
            help="A vector of product_embedding; may be repeated.", show_default="image_vector and text_vector"
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the index anew from the tables.")] = False,
    store: StoreOption = None,
) -> None:
    """Build the index of products that `consume search` reads, or bring it up to date.

    The recall against exact search is measured at each build, unfiltered and under filters that leave 10%, 1% and 0.1%
    of the products, and kept beside the index. Needs the extra `search`.
    """
    from feature_repo import run_log
    from feature_repo.extras import require

    require("search", "bm25s", "rjieba", "faiss")
    from producers.index.changes import SOURCES
    from producers.index.run import DEFAULT_VECTORS, STEP, index_products

    settings, now = config.load(store), datetime.now(UTC)
    with (
        run_log.record_run(settings, STEP, now=now, reads=list(SOURCES)) as run,
        console.make_progress_bar() as bar,
    ):
        task = bar.add_task("describe pictures", total=None)
        summary = index_products(
            settings,
            encoder_version=encoder_version,
            vectors=tuple(vector or DEFAULT_VECTORS),
            rebuild=rebuild,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
        run.set_model(summary.encoder_version)
        run.add_counts(added=summary.changed, known=summary.products)
    typer.echo(summary)
