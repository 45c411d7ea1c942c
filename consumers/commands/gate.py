"""`consume gate`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError
from feature_repo.files.atomic_write import prepare_output_files, write_text
from feature_repo.table_options import with_table_options

if TYPE_CHECKING:
    from feature_repo.table_format import TableFormat


@with_table_options
def gate(
    candidate: Annotated[str, typer.Option(help="The encoder version to check: name@fingerprint.")],
    output: Annotated[
        Path, typer.Option(dir_okay=False, help="JSON for `produce upgrade advance --gate`; an HTML page is beside it.")
    ] = Path("gate.json"),
    impressions: Annotated[
        Path | None,
        typer.Option(help="Log of impressions (Parquet or CSV): compare hit rate and AUC of both versions on it."),
    ] = None,
    features: Annotated[str, typer.Option(help="The feature service with the ranker's features.")] = "ranking",
    min_coverage: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Smallest accepted share of the rows in production that the candidate has too, in each table.",
        ),
    ] = 0.999,
    min_overlap: Annotated[
        float,
        typer.Option(min=0, max=1, help="Smallest accepted share of the 10 nearest products on which both agree."),
    ] = 0.1,
    min_tag_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest accepted share of products that keep each tag.")
    ] = 0.8,
    max_hit_rate_loss: Annotated[
        float, typer.Option(min=0, help="Largest accepted loss of next-click hit rate.")
    ] = 0.02,
    max_auc_loss: Annotated[
        float, typer.Option(min=0, help="Largest accepted loss of AUC, at the lower bound of its interval.")
    ] = 0.002,
    seeds: Annotated[int, typer.Option(min=1, help="Rankers trained for each version.")] = 2,
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws of the interval.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples of products.")] = 0,
    *,
    table_format: "TableFormat",
    store: StoreOption = None,
) -> None:
    """Compare the candidate of an encoder upgrade with the version in production. Exit code 1: a gate failed."""
    from rich.table import Table

    from consumers.gate.check import check_candidate, format_html
    from consumers.gate.options import ClickLogOptions, GateLimits

    if output.suffix.lower() == ".html":
        raise UsageError(f"--output {output}: the page is written beside the JSON; name a file that ends in .json")
    page = output.with_suffix(".html")
    prepare_output_files(output, page)
    report = check_candidate(
        config.load(store),
        candidate,
        GateLimits(min_coverage, min_overlap, min_tag_agreement, max_hit_rate_loss, max_auc_loss),
        None if impressions is None else ClickLogOptions(impressions, features, seeds, replicates, table_format),
        seed=seed,
        now=datetime.now(UTC),
    )
    report.write(output)
    write_text(page, format_html(report))
    table = Table()
    for name in ("gate", "result", "measured"):
        table.add_column(name, overflow="fold")
    for one in report.gates:
        table.add_row(one.name, "passed" if one.passed else "FAILED", one.detail)
    console.print_tables(table)
    typer.echo(f"written: {output} and {page}")
    if report.failures:
        raise typer.Exit(1)
