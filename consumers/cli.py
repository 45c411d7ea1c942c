"""`consume`: the command line of those who read features.

A command parses, calls the one function that does the work, and prints what came of it; heavy libraries are imported
inside it, so that `consume --help` answers at once.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from feature_repo import console, settings

app = typer.Typer(
    help="Join, judge and watch features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar=settings.ENVIRONMENT_VARIABLE,
        help="The deployment's feature_store.yaml.",
        show_default="feature_repo/feature_store.yaml",
    ),
]


JsonOption = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the figures as JSON to this file.")]


@app.callback()
def _root() -> None:
    """Join, judge and watch features."""


@app.command()
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
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds of each ranker.")] = 3,
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws behind each interval.")] = 300,
    json: JsonOption = None,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the HTML report to this file.")] = None,
    timings: Annotated[Path | None, typer.Option(help="A file of lines `seconds step`, shown in the report.")] = None,
    store: StoreOption = None,
) -> None:
    """Measure what features are worth to a ranker: AUC with and without them, on the same rows.

    Joins every impression with the feature service as of its own time, trains a ranker on the earlier days with and
    without each group of features, and gives the difference on the last days with its 95% interval, beside a placebo
    whose difference must be nothing.
    """
    began = time.perf_counter()
    from consumers.ranking import report as reports
    from consumers.ranking.run import measure

    steps = reports.read_timings(timings) if timings else []
    with console.progress_bar() as bar:
        task = bar.add_task("join impressions and features", total=None)
        run = measure(
            settings.load(store),
            impressions,
            service=features,
            truth=truth,
            test_days=test_days,
            seeds=seeds,
            replicates=replicates,
            now=datetime.now(UTC),
            progress=lambda name, done, total: bar.update(
                task, description=f"train rankers: {name}", completed=done, total=total
            ),
        )
    Console().print(reports.as_table(run))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(reports.as_json(run))
        typer.echo(f"figures: {json}")
    if report:
        reports.write_report(run, report, [*steps, ("consume lift", time.perf_counter() - began)])
        typer.echo(f"report:  {report}")


@app.command()
def freshness(
    max_age: Annotated[str, typer.Option(help="The greatest age of a view's newest event: 90m, 6h, 2d.")] = "1d",
    now: Annotated[
        str | None, typer.Option(help="Judge as of this time, with its offset: 2026-03-01T12:00Z.", show_default="now")
    ] = None,
    products: Annotated[
        Path | None,
        typer.Option(help="Parquet with the product_id of what is on sale.", show_default="the catalogue up to now"),
    ] = None,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Say how late each view is and how many products it covers; exit code 1 if one is too late."""
    from consumers.monitoring import freshness as views
    from consumers.monitoring.ages import parse_age, parse_moment
    from consumers.monitoring.terminal import as_table

    allowed, moment = parse_age(max_age), parse_moment(now) if now else datetime.now(UTC)
    found = views.check(settings.load(store), max_age=allowed, now=moment, products=products)
    Console().print(as_table(found))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(views.as_json(found))
        typer.echo(f"figures: {json}")
    for breach in found.breaches:
        typer.secho(breach, fg="red", err=True)
    if found.breaches:
        raise typer.Exit(1)


@app.command()
def tags_report(
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws behind each interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Say how good the predicted tags are, on labelled products that no tagger has seen.

    Beside them stand what the vectors alone give, a bag of words on the title, the text and the image vectors.
    """
    from consumers.tagging import report
    from consumers.tagging.terminal import as_tables

    judged = report.judge(settings.load(store), replicates=replicates, seed=seed)
    Console().print(as_tables(judged))
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(report.as_json(judged))
        typer.echo(f"figures: {json}")


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


if __name__ == "__main__":
    main()
