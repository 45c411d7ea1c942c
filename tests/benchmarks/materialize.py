"""Materialize from the offline table into the online store by `FeatureStore.materialize`: rows per second.

    python -m tests.benchmarks.materialize script   from Delta into Redis, against the compare-and-set script alone
    python -m tests.benchmarks.materialize lmdb     from Delta into LMDB, against the same into Redis
    python -m tests.benchmarks.materialize stock    from Delta into Redis, against stock Feast from Parquet into Redis

The rows are those of tests/benchmarks/online.py without codes, one for each product, with a TTL. The engine and its
settings are those of feature_repo/feature_store.yaml; stock Feast has the same settings and its own engine. Every run
starts with an empty online store, so every row is written.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer
import yaml
from feast import FeatureStore, FileSource
from feast.data_format import DeltaFormat, ParquetFormat
from feast.repo_config import RepoConfig

from feature_repo.offline import delta
from feature_repo.online import lmdb_store
from tests import servers
from tests.benchmarks import harness, online
from tests.benchmarks.harness import PairedComparison, RecordOption, RoundsOption
from tests.benchmarks.online import Dim

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
SETTINGS = Path(__file__).parents[2] / "feature_repo" / "feature_store.yaml"
DAY = timedelta(days=1)

Rows = Annotated[int, typer.Option(help="Rows to materialize.")]


def make_feature_store(
    folder: Path, online_store: dict[str, Any], rows: int, dim: int, *, stock: bool = False
) -> FeatureStore:
    """Return a project whose offline table has the rows: a Delta table for ours, a Parquet file for stock Feast."""
    settings = yaml.safe_load(SETTINGS.read_text())
    path = folder / ("looks.parquet" if stock else "looks")
    folder.mkdir()
    config = RepoConfig(
        project=folder.name,
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{folder}/registry.db"},
        online_store=online_store,
        offline_store={"type": "dask"} if stock else settings["offline_store"] | {"path": str(folder)},
        batch_engine={"type": "local"} if stock else settings.get("batch_engine", {"type": "local"}),
        materialization=settings["materialization"],
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    if stock:
        pq.write_table(online.make_rows(0, rows, dim, 0), path)
    else:
        for start in range(0, rows, online.BATCH):
            delta.append(path, online.make_rows(start, min(online.BATCH, rows - start), dim, 0))
    source = FileSource(
        path=str(path),
        file_format=ParquetFormat() if stock else DeltaFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    store = FeatureStore(config=config)
    store.apply(online.make_view(dim, 0, source))
    return store


def make_materialization(store: FeatureStore, empty: Callable[[], object], rows: int) -> Callable[[], None]:
    """Return a run that materializes all rows into the emptied online store, after checking that it works."""
    now = datetime.now(UTC)

    def run() -> None:
        empty()
        with Path(os.devnull).open("w") as null, redirect_stdout(null), redirect_stderr(null):  # a progress bar
            store.materialize(now - DAY, now + DAY)

    run()
    ids = [f"product-{number:08d}" for number in (0, rows // 2, rows - 1)]
    fetched = store.get_online_features([f"{online.VIEW}:vector"], {"product_id": ids}).to_dict()
    assert all(fetched["vector"]), "a row is not online"
    return run


def make_script_write(store: FeatureStore, empty: Callable[[], object], rows: int, dim: int) -> Callable[[], None]:
    """Return a run of the compare-and-set script alone, with packed rows from memory."""
    table, view = online.get_online_table(store), store.get_feature_view(online.VIEW)
    packer = store._get_provider().online_store.packer(store.config, view)
    keys, packed = packer.pack(table, online.make_rows(0, rows, dim, 0))

    def run() -> None:
        empty()
        assert table.store.write(keys, packed, packer.view.ttl_us) == rows

    return run


def redis_config(server: servers.RedisServer, kind: str = online.REDIS) -> dict[str, Any]:
    return {"type": kind, "connection_string": server.address}


def make_flush(server: servers.RedisServer) -> Callable[[], object]:
    client = server.client()
    return lambda: client.flushall(asynchronous=True)


@app.command()
def script(rows: Rows = 100_000, dim: Dim = 128, rounds: RoundsOption = 8, record: RecordOption = False) -> None:
    """Materialize from Delta into Redis, against the compare-and-set script alone."""
    with online.open_redis() as (root, server):
        store, empty = make_feature_store(root / "ours", redis_config(server), rows, dim), make_flush(server)
        ours = make_materialization(store, empty, rows)
        turns = PairedComparison(rounds, 1, online.describe_redis(server))
        figure = turns.compare(
            f"materialize {rows:,} rows, {dim}-d, Delta to Redis",
            ours,
            "the compare-and-set script alone",
            make_script_write(store, empty, rows, dim),
        )
    harness.report_figures([_with_rates(figure, rows)], record)


@app.command("lmdb")
def into_lmdb(rows: Rows = 100_000, dim: Dim = 128, rounds: RoundsOption = 8, record: RecordOption = False) -> None:
    """Materialize from Delta into LMDB, against the same into Redis."""
    with online.open_redis() as (root, server):
        folder = root / "online"
        embedded = make_feature_store(root / "embedded", {"type": online.LMDB, "path": str(folder)}, rows, dim)
        served = make_feature_store(root / "served", redis_config(server), rows, dim)
        note = f"{lmdb_store.ROWS_PER_COMMIT:,} rows per commit at most, each synced to disk; {online.LMDB_VERSION}"
        figure = PairedComparison(rounds, 1, note).compare(
            f"materialize {rows:,} rows, {dim}-d, Delta to LMDB",
            make_materialization(embedded, lambda: shutil.rmtree(folder, ignore_errors=True), rows),
            "Delta to Redis",
            make_materialization(served, make_flush(server), rows),
        )
    harness.report_figures([_with_rates(figure, rows)], record)


@app.command()
def stock(rows: Rows = 20_000, dim: Dim = 128, rounds: RoundsOption = 8, record: RecordOption = False) -> None:
    """Materialize from Delta into Redis, against stock Feast from Parquet into Redis."""
    with online.open_redis() as (root, server), servers.redis_server(root / "other") as other:
        ours = make_feature_store(root / "ours", redis_config(server), rows, dim)
        theirs = make_feature_store(root / "theirs", redis_config(other, "redis"), rows, dim, stock=True)
        figure = PairedComparison(rounds, 1, online.describe_redis(server)).compare(
            f"materialize {rows:,} rows, {dim}-d, to Redis",
            make_materialization(ours, make_flush(server), rows),
            "stock Feast, Parquet to Redis",
            make_materialization(theirs, make_flush(other), rows),
        )
    harness.report_figures([_with_rates(figure, rows)], record)


def _with_rates(figure: harness.BenchmarkFigure, rows: int) -> harness.BenchmarkFigure:
    rates = f"{rows / figure.seconds:,.0f} rows/s, theirs {rows / figure.against_seconds:,.0f}"
    return replace(figure, note=f"{rates}; {figure.note}")


if __name__ == "__main__":
    app(standalone_mode=False)
