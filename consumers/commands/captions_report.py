"""`consume captions-report`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from consumers.commands import outcome
from feature_repo import config
from feature_repo.console import JsonOption, StoreOption


def captions_report(
    truth: Annotated[
        Path | None,
        typer.Option(help="The truth folder of a generated shop: says whether what a line names is so."),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Judge these products alone: held_out.parquet beside a checkpoint, or a list of product_id."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Say how good the written captions are: beside the sellers' titles, and by whether what they name is so."""
    from consumers.captions import report

    judged = report.evaluate_captions(config.load(store), held_out=held_out, truth=truth, seed=seed)
    typer.echo(
        f"{judged.captioner_version}, {judged.products:,} products: BLEU-4 {judged.bleu4:.1f}, chrF {judged.chrf:.1f} "
        f"({judged.signature})"
    )
    if judged.truthfulness:
        table = Table("attribute", "of", "name one", "true", "95% interval", "products")
        for row in judged.truthfulness:
            interval = f"{row.ci95[0]:.3f} to {row.ci95[1]:.3f}"  # brackets would be markup
            table.add_row(
                row.attribute, row.lines, f"{row.names:.3f}", f"{row.true:.3f}", interval, f"{row.products:,}"
            )
        Console().print(table)
    outcome.write_figures(report.to_json(judged), json)
