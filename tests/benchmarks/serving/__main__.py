"""The command line."""

import typer

from tests.benchmarks import serving
from tests.benchmarks.serving.bare_flight import echo
from tests.benchmarks.serving.disturbed import disturbed
from tests.benchmarks.serving.load import load
from tests.benchmarks.serving.stages import stages
from tests.benchmarks.serving.stock import stock
from tests.benchmarks.serving.turns import turns

app = typer.Typer(help=serving.__doc__, pretty_exceptions_enable=False)
app.command()(turns)
app.command()(stock)
app.command()(load)
app.command()(disturbed)
app.command()(stages)
app.command(hidden=True)(echo)

if __name__ == "__main__":
    app(standalone_mode=False)
