"""`produce import`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def import_(
    name: Annotated[str, typer.Argument(help="flipkart_1050, grocery, beibei_zh, mum_baby, movielens or abt_buy.")],
    source: Annotated[Path, typer.Option("--from", help="Folder that holds the set's own files; it is only read.")],
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier import in it is replaced.")],
) -> None:
    """Bring a public data set into the shape of a shop: products, impressions, users, labels, as far as it has them.

    Pictures stay where they lie. What was left out or mended stands in OUT/refused.parquet with its reason.
    """
    from producers.datasets.imports.sets import bring_in

    typer.echo(bring_in(name, source, out, datetime.now(UTC)))
