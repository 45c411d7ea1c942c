"""`consume export-training`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, console
from feature_repo.console import MAX_LOST_SHARE, MaxLostShareOption, StoreOption
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def export_training(
    impressions: Annotated[Path, typer.Option(help="Log of impressions and clicks, a Parquet or CSV file.")],
    output: Annotated[
        Path,
        typer.Option("--output", "--out", help="Folder to write; an earlier export there is replaced."),
    ],
    features: Annotated[str, typer.Option(help="Feast feature service to join.")] = "ranking",
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
            help="parquet (each vector once), lightgbm, or libsvm (text, about 1 kB a row); can be repeated.",
            show_default="parquet, lightgbm",
        ),
    ] = None,
    created_before: Annotated[
        str | None,
        typer.Option(
            help="Join only feature rows created before this time, such as 2026-02-20T00:00:00+00:00: the same export "
            "again as it was made then.",
            show_default="all",
        ),
    ] = None,
    max_lost_share: MaxLostShareOption = MAX_LOST_SHARE,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Export a training set, each impression joined with the features of its own time.

    Parquet holds every vector once, each impression's row number among them, and the scalar features of the baseline
    and of every group; the torch dataset `consumers.ranking.impression_dataset.ImpressionDataset` reads it. lightgbm
    and libsvm hold the scalar features, one file for each of train, validation and test.
    """
    from consumers.ranking.export import LIGHTGBM, PARQUET
    from consumers.ranking.run import join_and_export
    from feature_repo.durations import parse_timestamp

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
            created_before=parse_timestamp(created_before) if created_before else None,
            table_format=table_format,
            max_lost_share=max_lost_share,
            progress=lambda part: bar.update(task, description=f"write {part}"),
        )
    for name, size in files.items():
        typer.echo(f"{output / name}: {size:,} bytes")
