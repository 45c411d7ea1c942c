"""Seconds of a commit of the stream, the first ones and those after 1,500, with and without the compaction.

    python -m tests.benchmarks.stream_commits

Each commit adds 20 new products to `product_catalogue` and `product_embedding`, as `produce stream` does. The two sides
commit to tables of their own, in turns.
"""

import logging
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import pyarrow as pa
import typer

from feature_repo import schema
from feature_repo.arrow.take import matrix_to_lists
from feature_repo.offline import delta, delta_files, retention
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.table import OnlineTable
from producers.streaming.row_writer import RowWriter
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.deployments import configure

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
PRODUCTS = 20
WIDTH = 64
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = {schema.CATALOGUE_TABLE: schema.CATALOGUE, schema.EMBEDDING_TABLE: schema.PRODUCT_EMBEDDING}
SIDES = {"compacted": retention.SMALL_FILES, "not compacted": 1 << 30}


@app.command()
def measure_commits(
    commits: Annotated[int, typer.Option(help="Commits of each side.")] = 1500,
    window: Annotated[int, typer.Option(help="Commits at the beginning and at the end that are compared.")] = 64,
    record: RecordOption = False,
) -> None:
    """Commit in turns and compare the last commits with the first."""
    logging.disable(logging.WARNING)
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        writers, settings = {}, {}
        for side in SIDES:
            (Path(folder) / side).mkdir()
            settings[side] = configure(Path(folder) / side)
            online = OnlineTable(LMDBStore(Path(folder) / side / "online", create=True), settings[side].project)
            writers[side] = RowWriter(settings[side], online, "benchmark@1", lambda: None)
        for number in range(commits):
            tables = {name: make_rows(columns, number) for name, columns in TABLES.items()}
            for side, writer in writers.items():
                stack.enter_context(mock.patch.object(retention, "SMALL_FILES", SIDES[side]))
                for name, rows in tables.items():
                    writer.write(name, rows)
                begin = time.process_time()
                writer.commit()
                seconds[side].append(time.process_time() - begin)
                stack.close()
            if (number + 1) % 100 == 0:
                recent = ", ".join(f"{side} {statistics.mean(seconds[side][-100:]) * 1e3:.1f} ms" for side in SIDES)
                print(f"commit {number + 1:,}: {recent}", flush=True)
        files = {
            side: len(delta_files.list_files(delta.open_table(settings[side].table(schema.EMBEDDING_TABLE))))
            for side in SIDES
        }
        for side in SIDES:
            for name in TABLES:
                assert delta.open_dataset(settings[side].table(name)).count_rows() == commits * PRODUCTS
    figures = [make_figure(side, seconds[side], commits, window, files[side]) for side in SIDES]
    harness.report_figures(figures, record)


def make_rows(columns: pa.Schema, commit: int) -> pa.Table:
    """Return rows of new products; every vector differs, and other columns are null or a number."""
    ids = [f"p{commit}-{number}" for number in range(PRODUCTS)]
    random = np.random.default_rng(commit)
    values = {}
    for column in columns:
        if column.type == schema.VECTOR:
            values[column.name] = matrix_to_lists(random.standard_normal((PRODUCTS, WIDTH)).astype(np.float32))
        elif pa.types.is_timestamp(column.type):
            values[column.name] = pa.array([BEGAN + timedelta(seconds=20 * commit)] * PRODUCTS, column.type)
        elif column.name in (schema.PRODUCT_ID, "title"):
            values[column.name] = pa.array(ids)
        else:
            values[column.name] = pa.nulls(PRODUCTS, column.type)
    return pa.table(values, schema=columns)


def make_figure(side: str, seconds: list[float], commits: int, window: int, files: int) -> harness.BenchmarkFigure:
    """Compare the mean of the last commits with that of the first; the range is over eighths of the windows."""
    first, last = seconds[:window], seconds[-window:]
    eighth = max(1, window // 8)
    ratios = [
        statistics.mean(last[start : start + eighth]) / statistics.mean(first)
        for start in range(0, window - eighth + 1, eighth)
    ]
    return harness.BenchmarkFigure(
        name=f"stream commit {commits:,} of {PRODUCTS} products to two tables, {side}, CPU seconds",
        seconds=statistics.mean(last),
        against=f"the first {window}",
        against_seconds=statistics.mean(first),
        ratio=statistics.mean(first) / statistics.mean(last),
        ratio_range=(1 / max(ratios), 1 / min(ratios)),
        rounds=window,
        command=harness.format_command(),
        note=f"takes {statistics.mean(last) / statistics.mean(first):.2f}x of the first; {files:,} files a table",
    )


if __name__ == "__main__":
    app(standalone_mode=False)
