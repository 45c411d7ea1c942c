"""`consume tags-report`."""

from typing import Annotated

import typer

from consumers.commands import outcome
from feature_repo import config, console
from feature_repo.console import JsonOption, StoreOption


def tags_report(
    replicates: Annotated[int, typer.Option(min=20, help="Bootstrap draws for each interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    json: JsonOption = None,
    store: StoreOption = None,
) -> None:
    """Report the quality of the predicted tags on labelled products that the tagger was not trained on.

    The tagger is compared with a bag of words of the title, with the text vector alone and with the image vector alone.
    """
    from consumers.tagging import report
    from consumers.tagging.terminal import render_tables

    quality = report.evaluate_tags(config.load(store), replicates=replicates, seed=seed)
    console.print_tables(render_tables(quality))
    outcome.write_figures(quality.to_json(), json)
