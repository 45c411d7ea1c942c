"""The training join against Feast's own offline stores and against a bare DuckDB ASOF join.

    python -m tests.benchmarks.asof vectors      1M impressions x 60k versions x 128-d, vectors in the result
    python -m tests.benchmarks.asof normalised   10M impressions over 60k versions, row numbers and distinct versions
    python -m tests.benchmarks.asof large        100M impressions, from a file into a folder

`--side NAME` runs only one side, once. The peak memory of a side is measured in such a process.
"""

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import typer

from feature_repo.offline import asof, delta
from tests.benchmarks import harness
from tests.benchmarks.harness import RecordOption, RoundsOption

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 60
STAMP = pa.timestamp("us", tz="UTC")
OURS = "vitrine"


def draw_timestamps(rng: np.random.Generator, rows: int) -> pa.Array:
    span = DAYS * 86_400 * 1_000_000
    return pa.array(int(START.timestamp()) * 1_000_000 + rng.integers(0, span, rows)).cast(STAMP)


def product_ids(numbers: np.ndarray) -> pa.Array:
    names = pa.array([f"product-{number:08d}" for number in range(int(numbers.max()) + 1)])
    return names.take(pa.array(numbers))


def make_versions(versions: int, products: int, dim: int) -> pa.Table:
    """Return versions of every product: one before the first impression, others at random times."""
    rng = np.random.default_rng(0)
    event = draw_timestamps(rng, versions).to_numpy(zero_copy_only=False).copy()
    event[:products] = np.datetime64(START.replace(tzinfo=None) - timedelta(days=1))
    vectors = rng.standard_normal(versions * dim, dtype=np.float32)
    return pa.table(
        {
            "product_id": product_ids(np.append(np.arange(products), rng.integers(0, products, versions - products))),
            "vector": pa.ListArray.from_arrays(pa.array(np.arange(versions + 1, dtype=np.int32) * dim), vectors),
            "event_timestamp": pa.array(event).cast(pa.timestamp("us")).cast(STAMP),
            "created_timestamp": pa.array(event).cast(pa.timestamp("us")).cast(STAMP),
        }
    )


def make_impressions(impressions: int, products: int, seed: int = 1) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "product_id": product_ids(rng.integers(0, products, impressions)),
            "event_timestamp": draw_timestamps(rng, impressions),
        }
    )


def make_feast_store(folder: Path, side: str, versions: Callable[[], pa.Table]) -> Any:
    """Return a FeatureStore over the same rows: a Delta table for ours, a Parquet copy for Feast's stores."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.data_format import DeltaFormat, ParquetFormat
    from feast.types import Array, Float32

    root = folder / side
    exists = root.exists()
    root.mkdir(parents=True, exist_ok=True)
    kind = "feature_repo.stores.offline.DeltaOfflineStore\n  path: ." if side == OURS else side
    (root / "feature_store.yaml").write_text(
        f"project: bench\nprovider: local\nregistry: registry.db\noffline_store:\n  type: {kind}\n"
        f"online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
    )
    path = root / ("looks" if side == OURS else "looks.parquet")
    if not exists:
        delta.append(path, versions()) if side == OURS else pq.write_table(versions(), path)
    store = FeatureStore(str(root))
    if not exists:
        product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
        source = FileSource(
            path=str(path),
            file_format=DeltaFormat() if side == OURS else ParquetFormat(),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        fields = [Field(name="vector", dtype=Array(Float32))]
        view = FeatureView(name="looks", entities=[product], ttl=timedelta(0), schema=fields, source=source)
        store.apply([product, view])
    return store


Impressions = Annotated[int, typer.Option(help="Rows to join.")]
Versions = Annotated[int, typer.Option(help="Rows of the feature view.")]
Products = Annotated[int, typer.Option(help="Distinct products.")]
Side = Annotated[str, typer.Option(help="Run only this side, once.")]
Folder = Annotated[str, typer.Option(help="Folder of the tables; a temporary one by default.")]


@app.command()
def vectors(
    impressions: Impressions = 1_000_000,
    versions: Versions = 60_000,
    products: Products = 8_000,
    dim: Annotated[int, typer.Option(help="Width of the vectors.")] = 128,
    rounds: RoundsOption = 8,
    dask_rounds: Annotated[int, typer.Option(help="Rounds of Feast's default store, which is slow.")] = 2,
    side: Side = "",
    folder: Folder = "",
    record: RecordOption = False,
) -> None:
    """Join with vectors in the result, by `get_historical_features(...).to_arrow()`."""
    root = Path(folder or tempfile.mkdtemp())
    table = make_versions(versions, products, dim)

    def joined(name: str) -> Callable[[], pa.Table]:
        store = make_feast_store(root, name, lambda: table)
        rows = make_impressions(impressions, products).to_pandas()
        return lambda: store.get_historical_features(rows, ["looks:vector"]).to_arrow()

    if side:
        joined(side)()
        return
    sides = {name: joined(name) for name in (OURS, "duckdb")}
    size = f"{impressions:,} impressions x {versions:,} versions x {dim}-d, vectors in the result"
    sizes = [f"--impressions={impressions}", f"--versions={versions}", f"--products={products}", f"--dim={dim}"]

    def peak(name: str) -> float:
        return harness.measure_peak_megabytes(
            "tests.benchmarks.asof", "vectors", *sizes, f"--side={name}", f"--folder={root}"
        )

    seconds = harness.take_turns(sides, rounds)
    note = f"peak {peak(OURS):,.0f} MB, theirs {peak('duckdb'):,.0f} MB, all imports but torch included"
    figures = [harness.compare_sides(size, seconds, OURS, "duckdb", note)]
    if dask_rounds:
        default = joined("dask")
        seconds = harness.take_turns({OURS: sides[OURS], "dask": default}, dask_rounds)
        lost = impressions - len(default())
        note = f"theirs lost {lost:,} of the impressions; peak {peak('dask'):,.0f} MB"
        figures.append(harness.compare_sides(size, seconds, OURS, "dask", note))
    _finish(figures, None if folder else root, record)


@app.command()
def normalised(
    impressions: Impressions = 10_000_000,
    versions: Versions = 60_000,
    products: Products = 8_000,
    dim: Annotated[int, typer.Option(help="Width of the vectors.")] = 128,
    rounds: RoundsOption = 8,
    side: Side = "",
    folder: Folder = "",
    record: RecordOption = False,
) -> None:
    """Join to row numbers of distinct versions, by `to_normalised()`, against a bare DuckDB ASOF join of the ids."""
    import duckdb

    root = Path(folder or tempfile.mkdtemp())
    table = make_versions(versions, products, dim)
    rows = make_impressions(impressions, products)
    order = table.select(["product_id", "event_timestamp"]).append_column("row", pa.array(np.arange(versions)))

    def bare_duckdb() -> pa.Table:
        connection = duckdb.connect()
        connection.register("impressions", rows)
        connection.register("versions", order)
        return connection.sql(
            "SELECT versions.row FROM impressions ASOF LEFT JOIN versions ON impressions.product_id = "
            "versions.product_id AND impressions.event_timestamp >= versions.event_timestamp"
        ).to_arrow_table()

    def bare_ours() -> np.ndarray:
        index = asof.index_versions([order["product_id"]], order["event_timestamp"])
        return asof.look_up(index, [rows["product_id"]], rows["event_timestamp"])

    store = make_feast_store(root, OURS, lambda: table)
    sides: dict[str, Callable[[], object]] = {
        OURS: lambda: store.get_historical_features(rows, ["looks:vector"]).to_normalised(),
        "join alone": bare_ours,
        "bare DuckDB ASOF": bare_duckdb,
    }
    if side:
        sides[side]()
        return
    seconds = harness.take_turns(sides, rounds)
    size = f"{impressions:,} impressions over {versions:,} versions, "
    sizes = [f"--impressions={impressions}", f"--versions={versions}", f"--products={products}", f"--dim={dim}"]

    def peak(name: str) -> float:
        return harness.measure_peak_megabytes(
            "tests.benchmarks.asof", "normalised", *sizes, f"--side={name}", f"--folder={root}"
        )

    other = "bare DuckDB ASOF"
    note = f"peak {peak(OURS):,.0f} MB, theirs {peak(other):,.0f} MB, impressions and imports included, torch not"
    figures = [
        harness.compare_sides(size + "normalised, vectors read", seconds, OURS, other, note),
        harness.compare_sides(size + "keys alone", seconds, "join alone", other, f"duckdb {duckdb.__version__}"),
    ]
    _finish(figures, None if folder else root, record)


@app.command()
def large(
    impressions: Impressions = 100_000_000,
    versions: Versions = 60_000,
    products: Products = 8_000,
    dim: Annotated[int, typer.Option(help="Width of the vectors.")] = 128,
    rounds: RoundsOption = 1,
    side: Side = "",
    folder: Folder = "",
    record: RecordOption = False,
) -> None:
    """Join impressions in Parquet, larger than memory, into a folder by `to_folder()`, against DuckDB file to file."""
    import duckdb

    root = Path(folder or tempfile.mkdtemp())
    rows = root / f"impressions-{impressions}.parquet"
    table = make_versions(versions, products, dim)
    if not rows.exists():
        with pq.ParquetWriter(rows, make_impressions(1, products).schema) as writer:
            for start in range(0, impressions, 1_000_000):
                writer.write_table(make_impressions(min(1_000_000, impressions - start), products, start))
    store = make_feast_store(root, OURS, lambda: table)
    order = table.select(["product_id", "event_timestamp"]).append_column("row", pa.array(np.arange(versions)))

    def ours() -> None:
        shutil.rmtree(root / "set", ignore_errors=True)
        store.get_historical_features(pyarrow.dataset.dataset(rows), ["looks:vector"]).to_folder(root / "set")

    def bare_duckdb() -> None:
        connection = duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(root / "spilled")})
        connection.register("versions", order)
        connection.sql(
            f"COPY (SELECT versions.row FROM '{rows}' impressions ASOF LEFT JOIN versions ON impressions.product_id = "
            "versions.product_id AND impressions.event_timestamp >= versions.event_timestamp) "
            f"TO '{root / 'duckdb.parquet'}'"
        )

    sides: dict[str, Callable[[], object]] = {OURS: ours, "DuckDB ASOF, file to file, 2 GB limit": bare_duckdb}
    if side:
        sides[side]()
        return
    other = list(sides)[1]
    seconds = harness.take_turns(sides, rounds)
    sizes = [f"--impressions={impressions}", f"--versions={versions}", f"--products={products}", f"--dim={dim}"]

    def peak(name: str) -> float:
        return harness.measure_peak_megabytes(
            "tests.benchmarks.asof", "large", *sizes, f"--side={name}", f"--folder={root}"
        )

    note = f"peak {peak(OURS):,.0f} MB, theirs {peak(other):,.0f} MB; theirs keeps no order"
    name = f"{impressions:,} impressions over {versions:,} versions, out of core"
    _finish([harness.compare_sides(name, seconds, OURS, other, note)], None if folder else root, record)


def _finish(figures: list[harness.BenchmarkFigure], temporary: Path | None, record: bool) -> None:
    harness.report_figures(figures, record)
    if temporary:
        shutil.rmtree(temporary)


if __name__ == "__main__":
    app(standalone_mode=False)
