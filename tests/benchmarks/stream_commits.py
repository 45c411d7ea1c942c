"""Seconds of a commit of the stream, the first ones and those after 1,500, with and without the compaction.

    python -m tests.benchmarks.stream_commits

Each commit adds 20 new products to `product_catalogue` and `product_embedding`, as `produce stream` does. The files of
the log are dated back, so that two commits are 20 seconds apart: 4,320 a day. The figure is CPU seconds, which other
work on the machine disturbs less than the time of day.
"""

import logging
import os
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
from feature_repo.config import Settings
from feature_repo.offline import delta, delta_files, retention
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.table import OnlineTable
from producers.streaming.row_writer import RowWriter
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption
from tests.deployments import configure

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
PRODUCTS = 20
SECONDS_BETWEEN_COMMITS = 20
WIDTH = 64
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = {schema.CATALOGUE_TABLE: schema.CATALOGUE, schema.EMBEDDING_TABLE: schema.PRODUCT_EMBEDDING}


@app.command()
def measure_commits(
    commits: Annotated[int, typer.Option(help="Number of commits before the measured ones.")] = 1500,
    window: Annotated[int, typer.Option(help="Commits that are measured on each side.")] = 64,
    compact: Annotated[bool, typer.Option(help="Merge small files, as the stream does.")] = True,
    record: RecordOption = False,
) -> None:
    """Commit many times, then compare further commits with the first ones of a new deployment, in turns."""
    logging.disable(logging.WARNING)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not compact:
            stack.enter_context(mock.patch.object(retention, "SMALL_FILES", 1 << 30))
        settings, writer = open_deployment(folder / "old")
        seconds = []
        for number in range(commits):
            seconds.append(measure_commit(writer, number))
            if (number + 1) % 100 == 0:
                date_back(settings)
                print(f"commit {number + 1:,}: {statistics.mean(seconds[-100:]) * 1e3:.1f} ms", flush=True)
        _, new_writer = open_deployment(folder / "new")
        turns = [
            (measure_commit(writer, commits + number), measure_commit(new_writer, number)) for number in range(window)
        ]
        for name in TABLES:
            assert delta.open_dataset(settings.table(name)).count_rows() == (commits + window) * PRODUCTS
        entries = len(list((settings.offline / schema.EMBEDDING_TABLE / "_delta_log").iterdir()))
        files = len(delta_files.list_files(delta.open_table(settings.table(schema.EMBEDDING_TABLE))))
    side = "small files merged" if compact else "small files left"
    harness.report_figures([make_figure(side, commits, turns, files, entries)], record)


def open_deployment(folder: Path) -> tuple[Settings, RowWriter]:
    """Make a deployment without tables and without views online, and a writer for it."""
    folder.mkdir()
    settings = configure(folder)
    online = OnlineTable(LMDBStore(folder / "online", create=True), settings.project)
    return settings, RowWriter(settings, online, lambda: None)


def measure_commit(writer: RowWriter, number: int) -> float:
    """Return the CPU seconds of one commit."""
    for name, columns in TABLES.items():
        writer.write(name, make_rows(columns, number))
    begin = time.process_time()
    writer.commit()
    return time.process_time() - begin


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


def date_back(settings: Settings) -> None:
    """Make the entries of the tables' logs older by the time that 100 commits take: 20 seconds each."""
    for name in TABLES:
        for file in (settings.table(name) / "_delta_log").iterdir():
            changed = file.stat().st_mtime - 100 * SECONDS_BETWEEN_COMMITS
            os.utime(file, (changed, changed))


def make_figure(
    side: str, commits: int, turns: list[tuple[float, float]], files: int, entries: int
) -> harness.BenchmarkFigure:
    """Compare the mean of the later commits with that of the first ones; the range is over quarters of the turns."""
    later, first = np.array(turns).T
    quarters = [
        float(ours.mean() / theirs.mean())
        for ours, theirs in zip(np.array_split(later, 4), np.array_split(first, 4), strict=True)
    ]
    ratio = float(later.mean() / first.mean())
    return harness.BenchmarkFigure(
        name=f"stream commits of {PRODUCTS} products to two tables after {commits:,} commits, {side}, CPU",
        seconds=float(later.mean()),
        against="the first commits",
        against_seconds=float(first.mean()),
        ratio=1 / ratio,
        ratio_range=(1 / max(quarters), 1 / min(quarters)),
        rounds=len(turns),
        command=harness.format_command(),
        note=f"takes {ratio:.2f}x [{min(quarters):.2f}, {max(quarters):.2f}] of the first; {files:,} files a table, "
        f"{entries:,} in its log",
    )


if __name__ == "__main__":
    app(standalone_mode=False)
