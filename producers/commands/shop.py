"""`produce shop`."""

from pathlib import Path
from typing import Annotated

import typer

MAX_COUNT = 100_000_000


def shop(
    output: Annotated[
        Path, typer.Option("--output", "--out", help="Folder to write; an earlier shop in it is replaced.")
    ],
    products: Annotated[int, typer.Option(max=MAX_COUNT, help="Number of products.")] = 8000,
    users: Annotated[int, typer.Option(max=MAX_COUNT, help="Number of users.")] = 1500,
    days: Annotated[int, typer.Option(max=36_500, help="Days of impressions, from 2026-01-01.")] = 60,
    seed: Annotated[int, typer.Option(help="Random seed; each seed gives another shop of the same kind.")] = 0,
    language: Annotated[str, typer.Option(help="Language of titles, brands and categories: zh or en.")] = "zh",
    impressions_per_user: Annotated[
        int, typer.Option(max=MAX_COUNT, help="Average number of impressions of a user over all days.")
    ] = 600,
) -> None:
    """Generate a mother-and-baby shop with known ground truth: products, images, users, impressions, labels."""
    from producers.datasets.shop.write import make_shop

    summary = make_shop(
        output,
        products=products,
        users=users,
        days=days,
        seed=seed,
        language=language,
        impressions_per_user=impressions_per_user,
    )
    typer.echo(
        f"{output}: {summary.products:,} products of {summary.designs:,} designs, "
        f"{summary.impressions:,} impressions, {summary.clicks:,} clicks "
        f"({summary.clicks / max(summary.impressions, 1):.1%})"
    )
