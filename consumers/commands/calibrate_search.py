"""`consume calibrate-search`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption


def calibrate_search(
    labels: Annotated[
        Path, typer.Option(help="CSV or Parquet: query, product_id, relevant (0 or 1), and perhaps category.")
    ],
    towers: Annotated[Path, typer.Option(help="Folder that `produce export` wrote, of the encoder of the index.")],
    output: Annotated[Path, typer.Option(help="The JSON file to write, for `consume search --calibration`.")],
    precision: Annotated[
        float, typer.Option(min=0.05, max=0.99, help="Wanted precision of what scores above a cut-off.")
    ] = 0.8,
    store: StoreOption = None,
) -> None:
    """Fit the weights of a search's parts, and a cut-off for each category, on labels.

    Products without a label are ignored. Needs the extra `search`.
    """
    from consumers.search import evaluation
    from consumers.search.calibration import write_calibration
    from feature_repo.exported.encoder import open_encoder
    from feature_repo.index.product_index import open_index
    from feature_repo.index.rows import find_folder
    from feature_repo.offline import input_files

    settings = config.load(store)
    encoder = open_encoder(towers)
    index = open_index(find_folder(settings, encoder.encoder_version), encoder.encoder_version)
    table = input_files.read_table(labels, ["query", "product_id", "category"])
    queries = evaluation.read_labels(table, index)
    scored = evaluation.score_queries(index, encoder, queries)
    fitted = evaluation.fit_queries(index.encoder_version, scored, precision=precision)
    write_calibration(fitted, output)
    weights = ", ".join(f"{part} {weight:.2f}" for part, weight in fitted.weights.items())
    missing = evaluation.count_missing(table, index)
    typer.echo(
        f"{output}: fitted on {fitted.labels:,} labels of {len(queries):,} queries; weights {weights}; "
        f"{len(fitted.cutoffs)} categories have a cut-off of their own"
        + f"; {missing:,} labels name products that are not in the index"
        * bool(missing)
    )
