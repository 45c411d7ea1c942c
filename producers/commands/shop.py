"""`produce shop`."""

from pathlib import Path
from typing import Annotated

import typer

MOST = 100_000_000


def shop(
    out: Annotated[Path, typer.Option(help="Folder to write; an earlier shop in it is replaced.")],
    products: Annotated[int, typer.Option(max=MOST, help="Products for sale.")] = 8000,
    users: Annotated[int, typer.Option(max=MOST, help="Users who visit.")] = 1500,
    days: Annotated[int, typer.Option(max=36_500, help="Days of impressions, from 2026-01-01.")] = 60,
    seed: Annotated[int, typer.Option(help="Another seed is another shop of the same kind.")] = 0,
    language: Annotated[str, typer.Option(help="Of titles, brands and categories: zh or en.")] = "zh",
    impressions_per_user: Annotated[
        int, typer.Option(max=MOST, help="Impressions per user, about, over all days.")
    ] = 600,
) -> None:
    """Generate a mother-and-baby shop whose truth is known: products, pictures, users, impressions, labels."""
    from producers.datasets.shop.write import make_shop

    made = make_shop(
        out,
        products=products,
        users=users,
        days=days,
        seed=seed,
        language=language,
        impressions_per_user=impressions_per_user,
    )
    typer.echo(
        f"{out}: {made.products:,} products of {made.designs:,} designs, {made.impressions:,} impressions, "
        f"{made.clicks:,} clicks ({made.clicks / max(made.impressions, 1):.1%})"
    )
