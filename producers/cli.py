"""`produce`: the command line of those who write features.

A command parses, calls the one function that does the work, and prints what came of it; heavy libraries are imported
inside it, so that `produce --help` answers at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import console, settings

app = typer.Typer(
    help="Turn a catalogue's images and titles into features.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar=settings.ENVIRONMENT_VARIABLE,
        help="The deployment's feature_store.yaml.",
        show_default="feature_repo/feature_store.yaml",
    ),
]


@app.callback()
def _root() -> None:
    """Turn a catalogue's images and titles into features."""


def main() -> None:
    """Entry point of the console script."""
    console.run(app)


if __name__ == "__main__":
    main()
