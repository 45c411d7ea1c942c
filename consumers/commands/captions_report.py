"""`consume captions-report`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption


def captions_report(
    truth: Annotated[
        Path | None,
        typer.Option(help="Truth folder of a generated shop; adds how often the statements are true."),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(help="Evaluate only these products: a checkpoint's held_out.parquet, or a list of product_id."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Report the quality of captions: similarity to the sellers' titles, and how often their statements are true."""
    from consumers.captions import report

    quality = report.evaluate_captions(config.load(store), held_out=held_out, truth=truth, seed=seed)
    typer.echo(
        f"{quality.captioner_version}, {quality.captioned:,} captions of {quality.products:,} products: "
        f"BLEU-4 {quality.bleu4:.1f}, CIDEr-D {quality.cider_d:.1f}, chrF {quality.chrf:.1f} ({quality.signature})"
    )
    for reason, products in quality.missing.items():
        typer.echo(f"  no caption for {products:,}: {reason}")
    if quality.truthfulness:
        table = Table("attribute", "of", "name one", "true", "95% interval", "products")
        for row in quality.truthfulness:
            interval = f"{row.ci95[0]:.3f} to {row.ci95[1]:.3f}"  # rich would read brackets as markup
            table.add_row(
                row.attribute, row.lines, f"{row.names:.3f}", f"{row.true:.3f}", interval, f"{row.products:,}"
            )
        console.print_tables(table)
    outcome.write_figures(quality.to_json(), json)
