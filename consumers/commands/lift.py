"""`consume lift`."""

import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption


class Ranker(StrEnum):
    """Who ranks, as `consumers.ranking.plan` calls them."""

    LIGHTGBM = "lightgbm"
    DIN = "din"
    BOTH = "both"


def lift(
    impressions: Annotated[Path, typer.Option(help="What was shown and clicked: a Parquet or CSV file.")],
    features: Annotated[str, typer.Option(help="The Feast feature service to measure.")] = "ranking",
    truth: Annotated[
        Path | None, typer.Option(help="The truth folder of a generated shop: adds the attainable and the oracle.")
    ] = None,
    test_days: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=36_500, help="Days at the end of the log to test on.", show_default="a sixth of the rows"
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each ranker.")] = 5,
    permutations: Annotated[int, typer.Option(min=1, help="Permutations of the placebo.")] = 20,
    ranker: Annotated[
        Ranker,
        typer.Option(help="Who ranks: lightgbm, din (attention over the history, in torch), or both side by side."),
    ] = Ranker.LIGHTGBM,
    ladder_rows: Annotated[
        int, typer.Option(min=1000, help="Rows, at most, that the rankers of single groups are trained on.")
    ] = 250_000,
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws behind each interval.")] = 300,
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the HTML report to this file.")] = None,
    timings: Annotated[Path | None, typer.Option(help="A file of lines `seconds step`, shown in the report.")] = None,
    store: StoreOption = None,
) -> None:
    """Measure what features are worth to a ranker: AUC with and without them, on the same rows.

    Joins every impression with the feature service as of its own time, trains a ranker on the earlier days with and
    without each group of features, and gives the difference on the last days with its 95% interval, beside the same
    features of swapped content. Whether a group is kept is decided on the days before those.
    """
    began = time.perf_counter()
    from consumers.ranking import report as reports
    from consumers.ranking.plan import TrainingPlan
    from consumers.ranking.run import measure_lift

    outcome.prepare_output_files(json, report)
    steps = reports.read_timings(timings) if timings else []
    with console.make_progress_bar() as bar:
        task = bar.add_task("join impressions and features", total=None)
        run = measure_lift(
            config.load(store),
            impressions,
            service=features,
            truth=truth,
            test_days=test_days,
            plan=TrainingPlan(seeds=seeds, permutations=permutations, ladder_rows=ladder_rows, ranker=ranker.value),
            replicates=replicates,
            now=datetime.now(UTC),
            timings=steps,
            progress=lambda name, done, total: bar.update(
                task, description=f"train rankers: {name}", completed=done, total=total
            ),
        )
    Console().print(reports.to_table(run))
    outcome.write_figures(reports.to_json(run), json)
    if report:
        reports.write_report(run, report, [*steps, ("consume lift", time.perf_counter() - began)])
        typer.echo(f"report:  {report}")
