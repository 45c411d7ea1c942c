"""A page of a selection as a table for a terminal."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from consumers.search.selection import SearchResult


def render_page(result: SearchResult, page: int, page_size: int) -> Group:
    """Return a page of the selected products, counted from 1; a page beyond the last one has no products."""
    start = (page - 1) * page_size
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("rank", justify="right")
    table.add_column("product", no_wrap=True)
    table.add_column("title")
    table.add_column("price", justify="right")
    table.add_column("score", justify="right")
    table.add_column("why")
    for row in result.products.slice(start, page_size).to_pylist():
        price = "" if row["price"] is None else f"{row['price']:.2f}"
        table.add_row(
            str(row["rank"]), row["product_id"], row["title"] or "", price, f"{row['score']:.2f}", row["reasons"]
        )
    total = result.products.num_rows
    lines = [f"{total:,} products of {result.allowed:,} that pass the filter"]
    if result.below_cutoff:
        lines[0] += f"; {result.below_cutoff:,} more are below the cut-off of their category"
    if total > page_size:
        lines.append(f"page {page} of {-(-total // page_size)}; --page shows another one")
    return Group(table, Text("\n".join(lines)))
