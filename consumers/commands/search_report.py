"""`consume search-report`."""

from pathlib import Path
from typing import Annotated

import typer

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption


def search_report(
    labels: Annotated[
        Path, typer.Option(help="CSV or Parquet: query, product_id, relevant (0 or 1), and perhaps category and kind.")
    ],
    towers: Annotated[Path, typer.Option(help="Folder that `produce export` wrote, of the encoder of the index.")],
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws for each interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap and of the halves.")] = 0,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Measure searches on labelled queries: average precision of each part, of their sum and of tuned BM25.

    Also precision and recall at the cut-off by category. Products without a label are left out of the rankings. Needs
    the extra `search`.
    """
    from consumers.search import evaluation
    from consumers.search.report import render_tables, report_search
    from feature_repo.exported.encoder import open_encoder
    from feature_repo.index.product_index import open_index
    from feature_repo.index.rows import find_folder
    from feature_repo.offline import input_files

    settings = config.load(store)
    encoder = open_encoder(towers)
    index = open_index(find_folder(settings, encoder.encoder_version), encoder.encoder_version)
    table = input_files.read_table(labels, ["query", "product_id", "category", "kind"])
    queries = evaluation.read_labels(table, index)
    report = report_search(index, encoder, queries, replicates=replicates, seed=seed)
    console.print_tables(render_tables(report))
    outcome.write_figures(report.to_json(), json)
