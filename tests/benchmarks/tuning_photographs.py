"""`produce encoder --task` on photographs: what it gains on the products that it holds out.

    python -m tests.benchmarks.tuning_photographs --data DIR --folder FOLDER --only flipkart_1050 --record

DIR has the public data sets, one folder each. Heads for pretrained towers are trained on a set and then tuned, by the
commands of a user. On flipkart_1050 they are tuned for sentences: the words of the titles, without labels. On grocery
they are tuned for the same product: photos of one of 81 classes. A photo has no title of its own and gets that of its
class, so only the rows of images say anything there. The figures are those of the `tuning.md` that the command writes.
The heads had seen all products; the tuning holds out a fifth, on grocery whole classes. --record writes TUNING.md.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.schema import PRODUCT_ID
from producers.learning.tuning_report import REPORT_FILE
from tests.benchmarks import harness, tuning

ROOT = Path(__file__).parents[2]
SETS = {"flipkart_1050": ("selection", ""), "grocery": ("matching", "--designs designs.parquet")}
"""The task of each set, and further options."""


def tune_set(name: str, data: Path, folder: Path) -> list[list[str]]:
    """Import a set, train heads and tune them, as far as that is not done; return the rows of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    task, options = SETS[name]
    if not (folder / "shop").exists():
        _run(folder, f"import {name} --from {shlex.quote(str(data / name))} --output shop")
        if name == "grocery":
            _name_photos(folder)
    if not (folder / "heads").exists():
        _run(folder, "encoder --data shop --output heads --towers auto --tower-outputs towers")
    if not (folder / task).exists():
        tuned = f"--from heads --task {task} --output {task} --tower-outputs towers {options}"
        _run(folder, f"encoder --data shop {tuned}")
    lines = (folder / task / REPORT_FILE).read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return rows[2:]


def _name_photos(folder: Path) -> None:
    """Give the photos of grocery the title of their class, and write designs.parquet: the class of each product."""
    pairs = pq.read_table(folder / "shop" / "pairs.parquet").to_pydict()
    class_of = dict(zip(pairs["left"], pairs["right"], strict=True))
    file = folder / "shop" / "products.parquet"
    products = pq.read_table(file)
    ids = products[PRODUCT_ID].to_pylist()
    title_of = dict(zip(ids, products["title"].to_pylist(), strict=True))
    shown = [class_of.get(product, product) for product in ids]
    titles = pa.table({"title": [title_of[name] for name in shown]})["title"]
    pq.write_table(products.set_column(products.column_names.index("title"), "title", titles), file)
    pq.write_table(pa.table({PRODUCT_ID: ids, "design_id": shown}), folder / "designs.parquet")


def _run(folder: Path, command: str) -> None:
    print(f"$ produce {command}", flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "producers", *shlex.split(command)], cwd=folder, env=environment, check=True)


def main() -> None:
    """Tune, print and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--folder", type=Path, required=True, help="where shops and encoders are made")
    parser.add_argument("--only", choices=SETS, action="append", help="a set; all if it is not given")
    parser.add_argument("--record", action="store_true", help="write the figures to TUNING.md")
    given = parser.parse_args()
    at = harness.describe_machine()
    for name in given.only or SETS:
        rows = tune_set(name, given.data.resolve(), given.folder.resolve() / name)
        command = f"`python -m tests.benchmarks.tuning_photographs --only {name}`"
        made = f"{at['commit']}, {at['date']}, {at['machine']}"
        for row in rows:
            print(" | ".join(row))
        if given.record:
            tuning.record(
                [
                    [name, SETS[name][0], measure, before, after, difference, f"{queries} queries", command, made]
                    for measure, before, after, difference, queries in rows
                ]
            )


if __name__ == "__main__":
    main()
