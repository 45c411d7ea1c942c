"""`consume tags-report`."""

from typing import Annotated

import typer
from rich.console import Console

from consumers.commands import outcome
from feature_repo import config
from feature_repo.console import JsonOption, StoreOption


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
    from consumers.tagging.terminal import render_tables

    judged = report.evaluate_tags(config.load(store), replicates=replicates, seed=seed)
    Console().print(render_tables(judged))
    outcome.write_figures(report.to_json(judged), json)
