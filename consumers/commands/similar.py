"""`consume similar`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config, console
from feature_repo.console import StoreOption
from feature_repo.errors import UsageError


def similar(
    product_ids: Annotated[list[str], typer.Argument(help="The products.")],
    top_k: Annotated[
        int, typer.Option(min=1, max=1_000, help="Number of similar products to list for each product.")
    ] = 20,
    output: Annotated[Path | None, typer.Option(help="Also write the list to this .csv file.")] = None,
    store: StoreOption = None,
) -> None:
    """List the products that are the same as, or similar to, some products.

    The same products are those of the product's group (`produce groups`). Similar products are the nearest by pictures
    and titles in the index of `produce index`, weighted 7 to 3, or by weights for each category that are fitted to the
    pairs of `consume labels import`. Needs the extra `search`.
    """
    from feature_repo.extras import require

    require("search", "faiss", "bm25s")
    from consumers.search.related import list_related, render_related
    from consumers.search.similarity_weights import read_weights
    from feature_repo.files.csv_export import write_csv
    from feature_repo.index.product_index import open_index
    from feature_repo.index.production import find_production_folder
    from feature_repo.offline import production

    if output is not None and output.suffix != ".csv":
        raise UsageError(f"{output}: expected a name that ends in .csv")
    settings = config.load(store)
    version = production.read_version(settings.offline)
    index = open_index(find_production_folder(settings.local, version))
    weights = read_weights(settings, index)
    found = list_related(settings, index, list(dict.fromkeys(product_ids)), weights, top_k=top_k)
    console.print_tables(render_related(found))
    own = ", ".join(f"{name} {weight:.1f}" for name, weight in sorted(weights.by_category.items()))
    learned = f" ({own})" * bool(own) + f", from {weights.labels:,} judged pairs"
    typer.echo(f"weight of the picture {weights.image:.1f}{learned}")
    if output is not None:
        write_csv(found, output)
        typer.echo(f"{output}: {len(found):,} products")
