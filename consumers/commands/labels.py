"""`consume labels`: sample, import and score."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import JsonOption, StoreOption
from feature_repo.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Draw pairs for people to judge, and measure the groups by their answers.")


@app.command()
def sample(
    output: Annotated[
        Path | None, typer.Option(help="The CSV to write, or JSON for Label Studio if the name ends in .json.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Store the sample, to be judged at /labels of `consume serve --pages`.")
    ] = False,
    anchors: Annotated[int, typer.Option(min=1, help="Number of products (anchors) to draw from each category.")] = 50,
    depth: Annotated[
        int, typer.Option(min=0, help="Number of the most probable candidates of an anchor that are always drawn.")
    ] = 3,
    tail: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Share of the other candidates in the rarest score stratum."),
    ] = 0.1,
    repeats: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of the pairs that are drawn a second time, with the sides exchanged."
        ),
    ] = 0.05,
    week: Annotated[str | None, typer.Option(help="Name of the sample.", show_default="the ISO week, 2026-W10")] = None,
    seed: Annotated[int, typer.Option(min=0, help="One seed for all weeks that are to be compared.")] = 0,
    store: StoreOption = None,
) -> None:
    """Draw pairs to be judged, stratified by category and score, with their inclusion probabilities."""
    from consumers.labels.files import write_sample
    from consumers.labels.frame import read_frame
    from consumers.labels.judging import store_sample
    from consumers.labels.sample import SamplingRates, draw_pairs

    if output is None and not page:
        raise UsageError("nothing to do with the sample; give --output FILE, --page, or both")
    settings, now = config.load(store), datetime.now(UTC)
    frame = read_frame(settings, now)
    drawn = draw_pairs(frame, SamplingRates(anchors, depth, tail, repeats), week=week or f"{now:%G-W%V}", seed=seed)
    count = len(set(drawn["product_id_l"].to_pylist()))
    if output is not None:
        write_sample(drawn, frame, output)
        typer.echo(f"{output}: {len(drawn):,} pairs of {count:,} products, drawn from {len(frame.anchor):,}")
    if page:
        added = store_sample(settings, drawn, now)
        typer.echo(f"to judge at /labels: {len(drawn):,} pairs of {count:,} products, {added:,} of them new")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The judged sample: CSV, or JSON that Label Studio exports.")],
    store: StoreOption = None,
) -> None:
    """Add judged pairs to the table pair_label. Rows without a label are not judged yet, and are left out."""
    from consumers.labels.files import read_judged
    from consumers.labels.report import import_labels

    rows = read_judged(file)
    added = import_labels(config.load(store), rows, datetime.now(UTC))
    typer.echo(f"{file}: {len(rows):,} judged pairs, {added:,} of them new or changed")


@app.command()
def score(
    top_k: Annotated[
        int, typer.Option(min=1, help="Number of the most probable candidates that precision@k counts.")
    ] = 3,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Estimate precision, recall and mean average precision by category and week; name categories that got worse."""
    from consumers.labels.report import score_labels
    from consumers.report_json import report_to_json
    from feature_repo.files.atomic_write import replace_atomically

    report = score_labels(config.load(store), top_k=top_k)
    if json is not None:
        with replace_atomically(json) as unfinished:
            unfinished.write_text(report_to_json(report) + "\n", encoding="utf-8")
    typer.echo(report)
