"""`produce groups`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console, schema
from feature_repo.console import EncoderVersionOption, StoreOption


def groups(
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="CSV of judged pairs: train a new verifier from them, and compare all products again.",
            show_default="the newest verifier",
        ),
    ] = None,
    one_per_seller: Annotated[
        bool, typer.Option("--one-per-seller", help="Never put two products of one seller into one group.")
    ] = False,
    top_k: Annotated[
        int, typer.Option(min=1, max=1_000, help="Number of candidates of a product in each vector space.")
    ] = 30,
    encoder_version: EncoderVersionOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the training.")] = 0,
    store: StoreOption = None,
) -> None:
    """Find the same product across sellers: compare new and changed products, and give each a group.

    Groups keep their ids as products come and go. The table product_group_journal tells which products joined, left,
    and were moved by merges and splits.
    """
    from feature_repo import run_log
    from feature_repo.offline.created_time import choose_created_timestamp
    from producers.groups.run import group_products

    settings, now = config.load(store), datetime.now(UTC)
    tables = [schema.GROUP_TABLE, schema.GROUP_JOURNAL_TABLE, schema.PAIR_TABLE]
    reads = [schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE]
    with run_log.record_run(settings, "groups", now=now, reads=reads) as run, console.make_progress_bar() as bar:
        task = bar.add_task("group products", total=None)
        summary = group_products(
            settings,
            judgements=pairs,
            encoder_version=encoder_version,
            one_per_seller=one_per_seller,
            top_k=top_k,
            seed=seed,
            now=choose_created_timestamp(settings, tables, now),
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
        run.set_model(summary.verifier_version)
        run.add_counts(added=summary.rows, compared=summary.compared, scored=summary.scored)
    typer.echo(summary)
