"""How the steps after the encoder grow with the catalogue: codes, neighbours, materialization, and bytes of a product.

    python -m tests.benchmarks.growth 100000 1000000 [--record]

Vectors of 128 values are a seeded latent of 32 values, mapped linearly, plus noise: nearest products are spread over
more cells than those of an encoder. Half of the products have impressions. Each step is a command in a process of its
own. It runs once for the whole catalogue, and once more after 10,000 products and one day of impressions have been
added. CPU seconds depend less on other work on the machine than seconds do.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo import config, schema
from tests import deployments
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.benchmarks.index import make_vectors
from tests.benchmarks.interests import append_rows, to_lists

TABLE = Path(__file__).parent / "GROWTH.md"
START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 3
ADDED = 10_000
BLOCK = 200_000
LIMITS = "--max-collisions 1 --min-entropy 0 --max-error 1"
"""Random vectors cannot be coded well; the work is the same."""
COMMANDS = {
    "codes": f"produce codes {LIMITS}",
    "neighbours": "produce neighbours --impressions log.parquet",
    "materialize": "feast materialize-incremental {now}",
}


@dataclass(frozen=True)
class StepCost:
    """What one run of a command took."""

    step: str
    seconds: float
    cpu_seconds: float
    peak_gigabytes: float


def run_step(step: str, folder: Path, now: datetime) -> StepCost:
    """Run the command of a step and measure its process."""
    program, *arguments = COMMANDS[step].format(now=now.isoformat()[:19]).split()
    store = folder / "feature_store.yaml"
    environment = deployments.clean_environment() | {config.ENVIRONMENT_VARIABLE: str(store)}
    at = deployments.ROOT / "feature_repo" if program == "feast" else folder
    start = time.perf_counter()
    output = folder / f"{step}.log"
    with output.open("w") as file:
        command = [str(Path(sys.executable).parent / program), *arguments]
        process = subprocess.Popen(command, cwd=at, env=environment, stdout=file, stderr=file)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, output.read_text()
    seconds, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
    cost = StepCost(step, seconds, cpu, used.ru_maxrss * 1.024e-6)
    print(f"{cost}\n{output.read_text()[-400:] if step != 'materialize' else ''}", flush=True)
    return cost


def add_products(folder: Path, first: int, count: int, listed: datetime) -> None:
    """Append catalogue and embedding rows of products `first` to `first + count`."""
    for start in range(first, first + count, BLOCK):
        size = min(BLOCK, first + count - start)
        names = pa.array([f"product-{number:09d}" for number in range(start, start + size)])
        stamps = {schema.EVENT_TIMESTAMP: listed, schema.CREATED_TIMESTAMP: listed}
        vectors = to_lists(make_vectors(size, seed=1 + start))
        embedding = {schema.PRODUCT_ID: names, "fused_vector": vectors, "encoder_version": "benchmark@1"}
        append_rows(folder, schema.EMBEDDING_TABLE, schema.PRODUCT_EMBEDDING, embedding | stamps)
        catalogue = {schema.PRODUCT_ID: names, "price": pa.array(np.random.default_rng(start).uniform(1, 100, size))}
        append_rows(folder, schema.CATALOGUE_TABLE, schema.CATALOGUE, catalogue | stamps)


def write_log(folder: Path, products: int, days: int, *, name: str = "product-{:09d}", start: datetime = START) -> None:
    """Write a log of `days` days with two impressions for each of the first half of the products, then fewer.

    Product number n has the id `name.format(n)`.
    """
    half = products // 2
    shown, moments, clicks = [], [], []
    for day in range(days):
        rng = np.random.default_rng(day)  # a longer log begins as a shorter one
        first = [rng.permutation(half), rng.integers(0, half, half)]
        shown.append(np.concatenate(first) if day == 0 else rng.integers(0, half, half // 10))
        moments.append(day * 86_400_000_000 + rng.integers(0, 86_400_000_000, len(shown[-1])))
        clicks.append(rng.random(len(shown[-1])) < 0.1)
    product, moment, is_clicked = (np.concatenate(parts) for parts in (shown, moments, clicks))
    order = np.argsort(moment, kind="stable")
    columns = {
        schema.IMPRESSION_ID: pa.array(np.arange(len(product))).cast(pa.string()),
        schema.USER_ID: pa.array(product % 100_000).cast(pa.string()),
        schema.PRODUCT_ID: pa.array([name.format(number) for number in product[order].tolist()]),
        schema.EVENT_TIMESTAMP: pa.array(moment[order] + int(start.timestamp() * 1e6), schema.TIMESTAMP),
        schema.CLICKED: pa.array(is_clicked[order].astype(np.int8)),
    }
    pq.write_table(pa.table(columns), folder / "log.parquet")


def measure_size(products: int, steps: list[str]) -> list[str]:
    """Return the lines of the table for a catalogue of `products` products."""
    folder = Path(tempfile.mkdtemp(prefix="growth-"))
    try:
        deployments.configure(folder)
        harness.call_in_process(add_products, folder, 0, products, START - timedelta(days=1))
        harness.call_in_process(write_log, folder, products, DAYS)
        environment = deployments.clean_environment() | {config.ENVIRONMENT_VARIABLE: f"{folder}/feature_store.yaml"}
        feast = str(Path(sys.executable).parent / "feast")
        subprocess.run(
            [feast, "apply"], cwd=deployments.ROOT / "feature_repo", env=environment, check=True, capture_output=True
        )
        now = START + timedelta(days=DAYS)
        first = {step: run_step(step, folder, now) for step in steps}
        sizes = measure_bytes(folder, products)
        harness.call_in_process(add_products, folder, products, ADDED, now)
        harness.call_in_process(write_log, folder, products, DAYS + 1)
        again = {step: run_step(step, folder, now + timedelta(days=1)) for step in steps}
        where = ", ".join(harness.describe_machine()[name] for name in ("commit", "date", "machine"))
        lines = [
            f"| {products:,} | {step} | {first[step].seconds:.0f} s, {first[step].cpu_seconds:.0f} CPU s "
            f"| {first[step].peak_gigabytes:.1f} GB | {again[step].seconds:.0f} s, {again[step].cpu_seconds:.0f} CPU s "
            f"| {again[step].peak_gigabytes:.1f} GB | {where} |"
            for step in steps
        ]
        if set(steps) != set(COMMANDS):  # some tables are missing
            return lines
        return [*lines, f"| {products:,} | bytes of a product | {sizes} | | | | {where} |"]
    finally:
        shutil.rmtree(folder)


def measure_bytes(folder: Path, products: int) -> str:
    """Return the bytes of a product in each table and online, after the first run."""
    tables = {path.name: _count_bytes(path) / products for path in sorted((folder / "offline").iterdir())}
    online = _count_bytes(next(iter(folder.glob("online*"))))
    return ", ".join(f"{name} {size:,.0f}" for name, size in (tables | {"online store": online / products}).items())


def _count_bytes(path: Path) -> int:
    """Bytes on disk; a sparse file counts what it occupies."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_blocks * 512 for file in files)


def main(
    sizes: Annotated[list[int], typer.Argument(help="Products of the catalogue.")],
    steps: Annotated[
        list[str] | None, typer.Option("--step", help=f"One of {', '.join(COMMANDS)}; all if none.")
    ] = None,
    record: RecordOption = False,
) -> None:
    """Measure each size."""
    lines = []
    for size in sizes:
        lines += measure_size(size, steps or list(COMMANDS))
        print("\n".join(lines), flush=True)
    if record:
        _record(lines)


def _record(lines: list[str]) -> None:
    head = [
        "# Growth",
        "",
        "Cost of steps over a catalogue of n products: the first run, and a run after 10,000 products and one day of",
        "impressions were added. The first run of `neighbours` computes 3 days, the second one 4: each run reads the",
        "log from its start. Written by `python -m tests.benchmarks.growth SIZE... --record`.",
        "",
        "| products | step | first run | peak memory | after a day | peak memory | commit, date, machine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    harness.replace_rows(TABLE, head, lines, key_cells=2)


if __name__ == "__main__":
    typer.run(main)
