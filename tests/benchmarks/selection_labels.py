"""Labels for `consume search-report` on public data, defined before anything was measured.

produce import flipkart_1050 --from DATA/flipkart_1050 --output SHOP
python -m tests.benchmarks.selection_labels flipkart_1050 --shop SHOP      # writes SHOP/queries.parquet
# then: produce catalogue, encoder, embeddings, index, export;
# consume search-report --labels SHOP/queries.parquet --towers TOWERS --json FIGURES
python -m tests.benchmarks.selection_labels flipkart_1050 --shop SHOP --record FIGURES   # writes SELECTION.md

flipkart_1050  The sentence is the last level of a category path of two levels or more that 5 to 100 products have, or
               are below. These fit, all others do not. There is no filter.
grocery        The photos of the set's train split get the name of their class as title, all others have none. The
               sentence is the name of a class; photos of it in `val` and `test` fit, other photos of these do not.
               Photos with a title, and the shop's own pictures, are not judged. Keywords have nothing to read.
               The encoder was trained with `produce encoder --minutes 25` on two busy cores: 427,000 pairs.
"""

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.schema import CATEGORY_SEPARATOR
from tests.benchmarks.selection_record import record_reports

FEWEST, MOST = 5, 100


def label_flipkart(shop: Path) -> pa.Table:
    products = pq.read_table(shop / "products.parquet").to_pylist()
    members: dict[str, set[str]] = {}
    for row in products:
        levels = (row["category"] or "").split(CATEGORY_SEPARATOR)
        for depth in range(2, len(levels) + 1):
            members.setdefault(CATEGORY_SEPARATOR.join(levels[:depth]), set()).add(row["product_id"])
    named: dict[str, set[str]] = {}
    for path, ids in members.items():
        if FEWEST <= len(ids) <= MOST:
            named.setdefault(path.split(CATEGORY_SEPARATOR)[-1], set()).update(ids)  # one name at several places
    return pa.Table.from_pylist(
        [
            {"query": name, "product_id": row["product_id"], "relevant": int(row["product_id"] in ids)}
            for name, ids in sorted(named.items())
            for row in products
        ]
    )


def label_grocery(shop: Path) -> pa.Table:
    products = pq.read_table(shop / "products.parquet")
    pairs = pq.read_table(shop / "pairs.parquet").to_pylist()
    shown = {row["left"]: row["right"].removeprefix("iconic/").replace("-", " ") for row in pairs}
    titles = [
        shown[one] if one.startswith("train/") else title
        for one, title in zip(products["product_id"].to_pylist(), products["title"].to_pylist(), strict=True)
    ]
    column = products.schema.get_field_index("title")
    pq.write_table(products.set_column(column, "title", pa.array(titles, pa.string())), shop / "products.parquet")
    judged = [row["left"] for row in pairs if not row["left"].startswith("train/")]
    return pa.Table.from_pylist(
        [
            {"query": name, "product_id": one, "relevant": int(shown[one] == name)}
            for name in sorted({shown[one] for one in judged})
            for one in judged
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["flipkart_1050", "grocery"])
    parser.add_argument("--shop", type=Path, required=True)
    parser.add_argument("--record", type=Path, help="write these figures of consume search-report to SELECTION.md")
    given = parser.parse_args()
    if given.record:
        command = f"consume search-report --labels {given.name}"
        record_reports({given.name: json.loads(given.record.read_text())}, command)
        return
    labels = label_flipkart(given.shop) if given.name == "flipkart_1050" else label_grocery(given.shop)
    pq.write_table(labels, given.shop / "queries.parquet")
    print(f"{given.shop / 'queries.parquet'}: {len(set(labels['query'].to_pylist()))} queries")


if __name__ == "__main__":
    main()
