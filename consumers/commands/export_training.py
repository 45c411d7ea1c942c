"""`consume export-training`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption


def export_training(
    impressions: Annotated[Path, typer.Option(help="What was shown and clicked: a Parquet or CSV file.")],
    output: Annotated[
        Path, typer.Option("--output", "--out", help="The folder to write; an earlier export there is replaced.")
    ],
    features: Annotated[str, typer.Option(help="The Feast feature service to join.")] = "ranking",
    test_days: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=36_500,
            help="Days at the end of the log that are the test.",
            show_default="a sixth of the rows",
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="parquet (vectors once), libsvm, lightgbm; may be said again.", show_default="parquet, lightgbm"
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Export a training set, correct in time, for whoever trains elsewhere.

    Parquet keeps every vector once, and of each impression which; a torch dataset reads it
    (`consumers.ranking.export.ImpressionDataset`). libsvm and LightGBM's binary hold the tabular part: the baseline's
    features and those of every group.
    """
    from consumers.ranking.export import LIGHTGBM, PARQUET
    from consumers.ranking.run import join_and_export

    with console.make_progress_bar() as bar:
        task = bar.add_task("join impressions and features", total=None)
        files = join_and_export(
            config.load(store),
            impressions,
            output,
            service=features,
            test_days=test_days,
            formats=format or [PARQUET, LIGHTGBM],
            now=datetime.now(UTC),
            progress=lambda what: bar.update(task, description=f"write {what}"),
        )
    for name, size in files.items():
        typer.echo(f"{output / name}: {size:,} bytes")
