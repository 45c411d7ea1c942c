"""`produce interests` over a log of clicks: seconds and peak memory against the goals of 300 s and 4 GB for 10 million.

    python -m tests.benchmarks.interests --clicks 10_000_000

Users click 100 times each on average (the busiest tenth makes a third of the clicks), on 60,000 products with 128-d
vectors and tags. A separate process is measured: it reads and checks the log, computes every version and writes it to
Delta.
"""

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from feature_repo import config, schema
from feature_repo.offline import delta
from tests.benchmarks import harness
from tests.benchmarks.harness import BenchmarkFigure, RecordOption

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
START = datetime(2026, 1, 1, tzinfo=UTC)
PRODUCTS, WIDTH, DAYS = 60_000, 128, 60
GOAL_SECONDS, GOAL_MEGABYTES = 300, 4000


@app.command()
def main(
    clicks: Annotated[int, typer.Option(help="Rows of the log, each a click.")] = 10_000_000,
    folder: Annotated[Path | None, typer.Option(help="Folder of the deployment, in the measured process.")] = None,
    record: RecordOption = False,
) -> None:
    """Generate a log and measure the command."""
    if folder is not None:
        run_interests(folder)
        return
    with tempfile.TemporaryDirectory() as root:
        make_deployment(Path(root), clicks)
        start = time.perf_counter()
        peak = harness.measure_peak_megabytes("tests.benchmarks.interests", "--folder", root)
        seconds = time.perf_counter() - start
        rows = delta.open_dataset(Path(root) / "offline" / "user_interest").count_rows()
        print(f"{rows:,} versions in {seconds:.1f} s, peak {peak:,.0f} MB")
        ratio = GOAL_SECONDS / seconds
        harness.report_figures(
            [
                BenchmarkFigure(
                    name=f"`produce interests`, {clicks:,} clicks, {WIDTH}-d",
                    seconds=seconds,
                    against="the goal",
                    against_seconds=GOAL_SECONDS,
                    ratio=ratio,
                    ratio_range=(ratio, ratio),
                    rounds=1,
                    command=harness.format_command(),
                    note=f"peak {peak / 1000:.1f} GB of {GOAL_MEGABYTES / 1000:.0f} GB; {rows:,} versions written",
                )
            ],
            record,
        )


def run_interests(folder: Path) -> None:
    """Run the measured step."""
    from producers.behaviour.interests import make_interests

    def progress(done: int, total: int) -> None:
        print(f"{done:,} of {total:,}", flush=True) if done == total else None

    opened = config.load(folder / "feature_store.yaml")
    now = START + timedelta(days=DAYS + 1)
    log = folder / "log.parquet"
    print(make_interests(opened, log, encoder_version=None, recompute=False, now=now, progress=progress))


def make_deployment(folder: Path, clicks: int) -> None:
    """Write a deployment with vectors and tags of products, and a log."""
    content = (Path(config.__file__).parent / "feature_store.yaml").read_text()
    (folder / "feature_store.yaml").write_text(content.replace("../data", str(folder)))
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((PRODUCTS, WIDTH), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = pa.array([f"product-{i:08d}" for i in range(PRODUCTS)])
    stamps = {"encoder_version": "bench@0", schema.EVENT_TIMESTAMP: START, schema.CREATED_TIMESTAMP: START}
    embedding = {schema.PRODUCT_ID: names, "fused_vector": to_lists(vectors)}
    append_rows(folder, "product_embedding", schema.PRODUCT_EMBEDDING, embedding | stamps)
    tags = {
        schema.PRODUCT_ID: names,
        "child_age_distribution": to_lists(generator.dirichlet(np.ones(5), PRODUCTS).astype(np.float32)),
        "child_gender_distribution": to_lists(generator.dirichlet(np.ones(3), PRODUCTS).astype(np.float32)),
    }
    append_rows(folder, "product_tags", schema.PRODUCT_TAGS, tags | stamps)
    users = max(1, clicks // 100)
    user_names = pa.array([f"user-{i:08d}" for i in range(users)])
    time = np.sort(generator.integers(0, DAYS * 86_400_000_000, clicks)) + int(START.timestamp() * 1e6)
    log = {
        schema.IMPRESSION_ID: pa.array(np.arange(clicks)).cast(pa.string()),
        schema.USER_ID: user_names.take(pa.array((generator.random(clicks) ** 2 * users).astype(np.int64))),
        schema.PRODUCT_ID: names.take(pa.array((generator.random(clicks) ** 2 * PRODUCTS).astype(np.int64))),
        schema.EVENT_TIMESTAMP: pa.array(time, schema.TIMESTAMP),
        schema.CLICKED: pa.array(np.ones(clicks, np.int8)),
    }
    pq.write_table(pa.table(log), folder / "log.parquet")


def append_rows(folder: Path, table: str, shape: pa.Schema, columns: dict) -> None:
    rows = len(columns[schema.PRODUCT_ID])
    filled = {}
    for field in shape:
        values = columns.get(field.name)
        same = not isinstance(values, pa.Array)
        filled[field.name] = pa.repeat(pa.scalar(values, field.type), rows) if same else values.cast(field.type)
    delta.append(folder / "offline" / table, pa.table(filled, shape))


def to_lists(matrix: np.ndarray) -> pa.Array:
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.ravel()))


if __name__ == "__main__":
    app(standalone_mode=False)
