"""`consume`: the command line for reading, evaluating and monitoring features."""

import typer

from consumers.commands import (
    calibrate_search,
    captions_report,
    cards,
    consistency,
    drift,
    export_training,
    freshness,
    gate,
    labels,
    lift,
    proxies,
    search,
    search_report,
    serve,
    similar,
    tags_report,
)
from feature_repo import console

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback(help="Read, evaluate and monitor features.")(console.configure)
app.command()(lift.lift)
app.command()(proxies.proxies)
app.command()(gate.gate)
app.command()(export_training.export_training)
app.command()(freshness.freshness)
app.command()(drift.drift)
app.command()(consistency.consistency)
app.command()(cards.cards)
app.command()(tags_report.tags_report)
app.command()(captions_report.captions_report)
app.command()(search.search)
app.command()(similar.similar)
app.command()(calibrate_search.calibrate_search)
app.command()(search_report.search_report)
app.add_typer(labels.app, name="labels")
app.command()(serve.serve)


def main() -> None:
    """Run the command line. The console script calls `consumers.__main__.main`, which calls this."""
    console.run_command_line(app)


if __name__ == "__main__":
    main()
