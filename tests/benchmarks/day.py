"""Cost of `produce day` over n products: the first day, a day on which nothing changed, and one of 10,000 changes.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.day 100000 1000000 [--record]

The catalogue and its vectors exist before: random ones of 128 values, whose nearest products are spread over many
cells. Half of the products have impressions, on three days. The first day derives everything. The second has the same
tables. On the third, 10,000 products have another title and there is one more day of impressions, as many as a tenth of
the products that have some. The day is one command; its CPU seconds and peak memory are those of all its processes.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from feature_repo import config
from feature_repo.config import Settings
from producers.catalogue.ingest import ingest_products
from tests import deployments
from tests.benchmarks import harness
from tests.benchmarks.growth import DAYS, write_log
from tests.benchmarks.harness import RecordOption
from tests.benchmarks.increments import CHANGED, NOW, embed_without_an_encoder, write_products
from tests.producers.encoders import checkpoints

TABLE = Path(__file__).parent / "DAY.md"
DIM = 128
NAME = "sku-{}"
"""Product ids of `write_products`."""
START = NOW - timedelta(days=DAYS)
LISTED = np.datetime64((START - timedelta(days=1)).replace(tzinfo=None), "us")
"""The products are listed on the day before the log begins."""
STEPS = (
    "produce catalogue --products {products}",
    "produce embeddings --encoder {encoder}",
    # Random vectors cannot be coded well; the work is the same.
    "produce codes --max-collisions 1 --min-entropy 0 --max-error 1",
    "produce interests --impressions {impressions}",
    "produce neighbours --impressions {impressions}",
    "feast materialize-incremental {now}",
)


@dataclass(frozen=True)
class DayCost:
    """What one `produce day` took."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_gigabytes: float
    """Of the largest of its processes."""
    steps: dict[str, float]
    """Wall seconds by step."""

    def format_row(self, products: int, where: str) -> str:
        """Return the row of the table."""
        steps = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.steps.items())
        cells = [f"{products:,}, {self.name}", f"{self.seconds:.0f} s, {self.cpu_seconds:.0f} CPU s"]
        return f"| {' | '.join([*cells, f'{self.peak_gigabytes:.1f} GB', steps, where])} |"


def make_store(folder: Path, products: int) -> None:
    """Write a catalogue with vectors, the log of the first days and the pipeline of the day."""
    settings = deployments.configure(folder)
    checkpoints.clip(folder / "encoder", dim=DIM)
    write_products(folder / "products.parquet", products, pictures=False, changed=0, listed=LISTED)
    ingest_products(settings, folder / "products.parquet", NOW)
    embed_without_an_encoder(settings, folder / "encoder")
    write_log(folder, products, DAYS, name=NAME, start=START)
    steps = "".join(f"    {json.dumps(line)},\n" for line in STEPS)
    (folder / "vitrine.toml").write_text(f'[pipeline]\nencoder = "{folder}/encoder"\nsteps = [\n{steps}]\n')


def run_day(settings: Settings, name: str) -> DayCost:
    """Run `produce day` and measure it with the processes that it starts."""
    folder = settings.file.parent
    command = [sys.executable, "-m", "producers", "day", "--products", "products.parquet"]
    command += ["--impressions", "log.parquet", "--json", "day.json", "--restart", "--store", str(settings.file)]
    with (folder / "day.log").open("w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=deployments.clean_environment(), stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
    assert process.returncode == 0, (folder / "day.log").read_text()
    steps = json.loads((folder / "day.json").read_text())["steps"]
    cost = DayCost(
        name,
        seconds,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * 1.024e-6,
        {step["name"]: step["seconds"] for step in steps},
    )
    print(cost, flush=True)
    return cost


def measure_size(products: int) -> list[str]:
    """Return the rows of the table for a catalogue of `products` products."""
    folder = Path(tempfile.mkdtemp(prefix="day-"))
    try:
        harness.call_in_process(make_store, folder, products)
        settings = config.load(folder / "feature_store.yaml")
        deployments.run_command("feast apply", folder, settings)
        costs = [run_day(settings, "first day"), run_day(settings, "nothing changed")]
        write_products(folder / "products.parquet", products, pictures=False, changed=CHANGED, listed=LISTED)
        write_log(folder, products, DAYS + 1, name=NAME, start=START)
        costs.append(run_day(settings, f"{CHANGED:,} changed"))
        where = ", ".join(harness.describe_machine()[name] for name in ("commit", "date", "machine"))
        return [cost.format_row(products, where) for cost in costs]
    finally:
        shutil.rmtree(folder)


def main(
    sizes: Annotated[list[int], typer.Argument(help="Products of the catalogue.")], record: RecordOption = False
) -> None:
    """Measure each size; with --record add the figures to DAY.md."""
    rows = []
    for size in sizes:
        rows += measure_size(size)
        print("\n".join(rows), flush=True)
    head = [
        "# A day",
        "",
        "Cost of `produce day` over n products with vectors of 128 random values. The first day derives everything,",
        "the second has the same tables, and on the third 10,000 products have another title and there is one more day",
        "of impressions. Written by `python -m tests.benchmarks.day SIZE... --record`.",
        "",
        "| products and day | in all | peak memory of a process | wall seconds of its steps | commit, date, machine |",
        "| --- | --- | --- | --- | --- |",
    ]
    if record:
        harness.replace_rows(TABLE, head, rows)


if __name__ == "__main__":
    typer.run(main)
