"""The command line."""

import typer

from tests.benchmarks import photographs
from tests.benchmarks.photographs.cost import heads, lite0, new_head
from tests.benchmarks.photographs.quality import quality

app = typer.Typer(help=photographs.__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(quality)
app.command()(heads)
app.command()(new_head)
app.command()(lite0)

if __name__ == "__main__":
    app()
