"""`consume lift`."""

import shlex
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import MAX_LOST_SHARE, JsonOption, MaxLostShareOption, StoreOption
from feature_repo.files.atomic_write import prepare_output_files
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


class Ranker(StrEnum):
    """Values of --ranker: trees (LightGBM), a deep interest network in torch (DIN), or both."""

    LIGHTGBM = "lightgbm"
    DIN = "din"
    BOTH = "both"


@with_table_options
def lift(
    impressions: Annotated[Path, typer.Option(help="Log of impressions and clicks, a Parquet or CSV file.")],
    features: Annotated[str, typer.Option(help="Feast feature service to measure.")] = "ranking",
    truth: Annotated[
        Path | None, typer.Option(help="Truth folder of a generated shop; adds the ceiling and the oracle.")
    ] = None,
    test_days: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=36_500,
            help="Days at the end of the log that are the test.",
            show_default="a sixth of the rows",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each ranker.")] = 5,
    permutations: Annotated[int, typer.Option(min=1, help="Permutations of the placebo.")] = 20,
    ranker: Annotated[
        Ranker,
        typer.Option(help="Kind of ranker: lightgbm, din (attention over the user's clicks, in torch), or both."),
    ] = Ranker.LIGHTGBM,
    ablation_rows: Annotated[
        int,
        typer.Option(
            "--ablation-rows",
            "--ladder-rows",
            min=1000,
            help="Maximum number of rows to train the rankers of single groups on (old name: --ladder-rows).",
        ),
    ] = 250_000,
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws for each interval.")] = 300,
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the HTML report to this file.")] = None,
    timings: Annotated[
        Path | None,
        typer.Option(help="File of lines `seconds step`, shown in the report and used for the cost of each group."),
    ] = None,
    max_lost_share: MaxLostShareOption = MAX_LOST_SHARE,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Measure what features are worth to a ranker: AUC with and without them, on the same rows.

    Joins every impression with the feature service as of its own time, trains rankers on the earlier days with and
    without each group of features, and reports the difference on the last days with its 95% interval. A placebo with
    permuted content is measured the same way. Whether to keep a group is decided on the days before the test.
    """
    start = time.perf_counter()
    from consumers.ranking.plan import TrainingPlan
    from consumers.ranking.report import Provenance, read_timings, to_json, to_table, write_report
    from consumers.ranking.run import measure_lift

    prepare_output_files(report)
    steps = read_timings(timings) if timings else []
    settings, now = config.load(store), datetime.now(UTC)
    command = shlex.join(["consume", *sys.argv[1:]])
    provenance = Provenance(now, command, version("vitrine"), impressions.resolve(), settings.file)
    with console.make_progress_bar() as bar:
        task = bar.add_task("join impressions and features", total=None)
        result = measure_lift(
            settings,
            impressions,
            service=features,
            truth=truth,
            test_days=test_days,
            plan=TrainingPlan(seeds=seeds, permutations=permutations, ablation_rows=ablation_rows, ranker=ranker.value),
            replicates=replicates,
            now=now,
            table_format=table_format,
            max_lost_share=max_lost_share,
            timings=steps,
            progress=lambda name, done, total: bar.update(
                task, description=f"train rankers: {name}", completed=done, total=total
            ),
        )
    console.print_tables(to_table(result))
    outcome.write_figures(to_json(result, provenance), json)
    if report:
        write_report(result, report, [*steps, ("consume lift", time.perf_counter() - start)], provenance)
        typer.echo(f"report:  {report}")
