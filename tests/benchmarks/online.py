"""Fetch features of 500 products: the fast reader and `get_online_features` against raw clients and stock Feast.

    python -m tests.benchmarks.online redis      from Redis on loopback: raw MGET, stock Feast, and our store in Feast
    python -m tests.benchmarks.online lmdb       from LMDB: raw getmulti, and Redis
    python -m tests.benchmarks.online memory     memory of Redis per row
    python -m tests.benchmarks.online growth     the same request while the store grows to a million products

A product has a vector in float16, three tags with their probabilities, and four codes. Every request names other
products, drawn at random. Every side starts with ids and ends with arrays of all features. The raw clients know the
layout in advance: they build the same keys, fetch the same rows, decode only the vectors to one float32 matrix, and
check nothing.
"""

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import lmdb
import numpy as np
import pyarrow as pa
import redis
import typer
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int32, String
from numpy.typing import NDArray

from consumers.online import OnlineReader, Status
from feature_repo.online import entity_keys, quantization
from feature_repo.online.table import OnlineTable
from feature_repo.stores.online.packed import PackedOnlineStore
from feature_repo.stores.online.response import ColumnarResponse
from tests import servers
from tests.arrow_rows import write_arrow
from tests.benchmarks import harness
from tests.benchmarks.harness import PairedComparison, RecordOption, RoundsOption
from tests.feature_repo.stores.online import feast_world

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
TAGS = ("child_age", "child_gender", "category")
WORDS = 40
CODES = 4
VIEW = "looks"
REDIS = "feature_repo.stores.online.RedisOnlineStore"
LMDB = "feature_repo.stores.online.LMDBOnlineStore"
LMDB_VERSION = f"LMDB {'.'.join(map(str, lmdb.version()))}"
BATCH = 20_000
SEEDS = itertools.count()
UNUSED_SOURCE = FileSource(
    path="looks", timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
)

Widen = Callable[[NDArray[np.float16]], NDArray[np.float32]]
Products = Annotated[int, typer.Option(help="Products in the store.")]
Candidates = Annotated[int, typer.Option("--asked", help="Products in one request.")]
Dim = Annotated[int, typer.Option(help="Width of the vectors.")]
Calls = Annotated[int, typer.Option(help="Requests in a turn; the median is kept.")]


def make_view(dim: int, codes: int, source: FileSource = UNUSED_SOURCE) -> list[Any]:
    """Return the entity and the view of products."""
    product = Entity(name="product", join_keys=["product_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name=VIEW,
        entities=[product],
        ttl=timedelta(days=30),
        schema=[
            Field(name="vector", dtype=Array(Float32), vector_length=dim, tags={"storage": "float16"}),
            *(Field(name=tag, dtype=String, tags={"storage": "dictionary"}) for tag in TAGS),
            *(Field(name=f"{tag}_probability", dtype=Float32) for tag in TAGS),
            *([Field(name="codes", dtype=Array(Int32), vector_length=codes)] if codes else []),
        ],
        source=source,
    )
    return [product, view]


def product_ids(numbers: NDArray[np.int64]) -> list[str]:
    return [f"product-{number:08d}" for number in numbers.tolist()]


def make_rows(first: int, count: int, dim: int, codes: int) -> pa.Table:
    """Return rows of the products `first`, `first` + 1, ..., with the current time."""
    rng = np.random.default_rng(first)
    now = pa.array([datetime.now(UTC)] * count, pa.timestamp("us", tz="UTC"))
    words = np.array([f"label {i}" for i in range(WORDS)])
    columns = {
        "product_id": product_ids(np.arange(first, first + count)),
        "vector": to_lists(rng.standard_normal(count * dim, dtype=np.float32), dim),
        **{tag: words[rng.integers(0, WORDS, count)] for tag in TAGS},
        **{f"{tag}_probability": rng.random(count, np.float32) for tag in TAGS},
        "event_timestamp": now,
        "created_timestamp": now,
    }
    if codes:
        columns["codes"] = to_lists(rng.integers(0, 256, count * codes, dtype=np.int32), codes)
    return pa.table(columns)


def to_lists(items: NDArray[Any], width: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(items) + 1, width, dtype=np.int32)), items)


@contextmanager
def open_project(
    folder: Path, online_store: dict[str, Any], products: int, dim: int, codes: int = CODES
) -> Iterator[FeatureStore]:
    """Yield a Feast project with the name of its folder, with `products` rows in its online store."""
    with feast_world.project(folder, online_store, make_view(dim, codes), project=folder.name) as store:
        ours = isinstance(store._get_provider().online_store, PackedOnlineStore)
        for start in range(0, products, BATCH):
            batch = make_rows(start, min(BATCH, products - start), dim, codes)
            if ours:
                write_arrow(store, VIEW, batch)
            else:
                store.write_to_online_store(VIEW, batch.to_pandas())
        yield store


def draw_requests(products: int, candidates: int) -> Callable[[], list[str]]:
    """Return a function that gives the ids of the next request.

    Each side draws its own ids, so that no side finds another side's rows in the cache.
    """
    rng = np.random.default_rng(next(SEEDS))
    drawn = [product_ids(rng.choice(products, candidates, replace=False)) for _ in range(64)]
    return itertools.cycle(drawn).__next__


def fetch_with_reader(reader: OnlineReader, products: int, candidates: int) -> Callable[[], object]:
    ids = draw_requests(products, candidates)
    assert (reader.fetch(VIEW, ids()).status == Status.PRESENT).all()
    return lambda: dict(reader.fetch(VIEW, ids()).values)


def fetch_with_feast(store: FeatureStore, products: int, candidates: int) -> Callable[[], object]:
    """Return a fetch by `get_online_features`; the lists of stock Feast are converted to arrays."""
    ids = draw_requests(products, candidates)
    refs = [f"{VIEW}:{feature.name}" for feature in store.get_feature_view(VIEW).features]

    def fetch() -> object:
        response = store.get_online_features(refs, {"product_id": ids()})
        if isinstance(response, ColumnarResponse):
            return response.to_numpy()
        return {name: np.array(values) for name, values in response.to_dict().items()}

    return fetch


def fetch_raw(
    table: OnlineTable, get: Callable[[list[bytes]], list[bytes]], products: int, candidates: int, widen: Widen
) -> Callable[[], object]:
    """Return a fetch by a raw client that knows the offset of the vector in a row."""
    ids, prefix = draw_requests(products, candidates), entity_keys.make_prefix(table.project, VIEW)
    layout = table.catalog.get_view(VIEW).layout
    field, at = layout.fields_by_name["vector"], layout.offsets["vector"]

    def fetch() -> object:
        values = get([prefix + one.encode() for one in ids()])
        matrix = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)
        return widen(matrix[:, at : at + field.size].view(np.float16))

    return fetch


def cast_with_numpy(stored: NDArray[np.float16]) -> NDArray[np.float32]:
    return stored.astype(np.float32)


def cast_with_ours(stored: NDArray[np.float16]) -> NDArray[np.float32]:
    values = np.empty(stored.shape, np.float32)
    quantization.widen_float16(stored, values)
    return values


RAW: dict[str, Widen] = {"decoded by NumPy's cast": cast_with_numpy, "decoded by our faster cast": cast_with_ours}


def open_getmulti(path: Path) -> Callable[[list[bytes]], list[bytes]]:
    """Return a read by keys from a copy of an LMDB, because a process must not open the same one twice."""
    environment = lmdb.open(str(shutil.copytree(path, path.with_name("copy"))), map_size=1 << 30, readahead=False)

    def get(keys: list[bytes]) -> list[bytes]:
        with environment.begin() as transaction, transaction.cursor() as cursor:
            return [value for _, value in cursor.getmulti(keys)]

    return get


def get_online_table(store: FeatureStore) -> OnlineTable:
    return store._get_provider().online_store.online_table(store.config)


def describe_redis(server: servers.RedisServer) -> str:
    """Return versions of the Redis server and its client."""
    info = server.client().info()
    return f"Redis {info['redis_version']} ({info['mem_allocator']}) on loopback, redis-py {redis.__version__}"


@app.command("redis")
def from_redis(
    dim: Dim = 128,
    products: Products = 10_000,
    candidates: Candidates = 500,
    rounds: RoundsOption = 10,
    calls: Calls = 20,
    record: RecordOption = False,
) -> None:
    """Compare the fast reader, raw MGET, our store in Feast and stock Feast on one Redis."""
    what = f"fetch {candidates} of {products:,} products, {dim}-d, "
    with open_redis() as (root, server):
        ours = {"type": REDIS, "connection_string": server.address}
        stock = {"type": "redis", "connection_string": server.address}
        with (
            open_project(root / "ours", ours, products, dim) as our_store,
            open_project(root / "stock", stock, products, dim) as stock_store,
            OnlineReader(f"redis://{server.address}", project="ours") as reader,
        ):
            mget = server.client().mget
            reading = fetch_with_reader(reader, products, candidates)
            in_feast = fetch_with_feast(our_store, products, candidates)
            in_stock = fetch_with_feast(stock_store, products, candidates)
            raw = {
                f"raw MGET, {how}": fetch_raw(get_online_table(our_store), mget, products, candidates, widen)
                for how, widen in RAW.items()
            }
            turns = PairedComparison(rounds, calls, describe_redis(server))
            figures = [turns.compare(what + "Redis", reading, name, other) for name, other in raw.items()]
            figures += [
                turns.compare(what + "Redis", reading, "stock Feast, Redis", in_stock),
                turns.compare(what + "Redis, get_online_features", in_feast, "stock Feast, Redis", in_stock),
                turns.compare(what + "Redis, get_online_features", in_feast, "the fast reader", reading),
            ]
    harness.report_figures(figures, record)


@app.command("lmdb")
def from_lmdb(
    dim: Dim = 128,
    products: Products = 10_000,
    candidates: Candidates = 500,
    rounds: RoundsOption = 10,
    calls: Calls = 20,
    record: RecordOption = False,
) -> None:
    """Compare the fast reader on LMDB with raw getmulti and with the fast reader on Redis."""
    what = f"fetch {candidates} of {products:,} products, {dim}-d, "
    with open_redis() as (root, server):
        path = root / "lmdb"
        with (
            open_project(root / "embedded", {"type": LMDB, "path": str(path)}, products, dim) as store,
            open_project(root / "served", {"type": REDIS, "connection_string": server.address}, products, dim),
            OnlineReader(f"lmdb://{path}", project="embedded") as reader,
            OnlineReader(f"redis://{server.address}", project="served") as other,
        ):
            reading, by_key = fetch_with_reader(reader, products, candidates), open_getmulti(path)
            turns = PairedComparison(rounds, calls, LMDB_VERSION)
            figures = [
                turns.compare(
                    what + "LMDB",
                    reading,
                    f"raw getmulti, {how}",
                    fetch_raw(get_online_table(store), by_key, products, candidates, widen),
                )
                for how, widen in RAW.items()
            ]
            in_redis = fetch_with_reader(other, products, candidates)
            figures += [
                turns.compare(what + "LMDB", reading, "the fast reader, Redis", in_redis),
                turns.compare(
                    what + "LMDB, get_online_features",
                    fetch_with_feast(store, products, candidates),
                    "the fast reader",
                    reading,
                ),
            ]
    harness.report_figures(figures, record)


@app.command()
def memory(
    dim: Dim = 128,
    products: Products = 100_000,
    stock_products: Annotated[int, typer.Option(help="Products in stock Feast's Redis.")] = 10_000,
    record: RecordOption = False,
) -> None:
    """Measure the `used_memory` that a row adds: the vector, three tags, their probabilities and a TTL."""

    def bytes_per_row(name: str, kind: str, count: int) -> float:
        store = {"type": kind, "connection_string": server.address}
        with feast_world.project(root / f"{name}_empty", store, make_view(dim, 0), project=name):
            before = server.client().info("memory")["used_memory"]
        with open_project(root / name, store, count, dim, codes=0):
            return (server.client().info("memory")["used_memory"] - before) / count

    with open_redis() as (root, server):
        ours = bytes_per_row("ours", REDIS, products)
        theirs = bytes_per_row("stock", "redis", stock_products)
        figure = harness.BenchmarkFigure(
            name=f"memory of a row in Redis, {dim}-d float16, three tags and probabilities, TTL, {products:,} rows",
            seconds=ours,
            against=f"stock Feast, no TTL, {stock_products:,} rows",
            against_seconds=theirs,
            ratio=theirs / ours,
            ratio_range=(theirs / ours, theirs / ours),
            rounds=1,
            command=harness.format_command(),
            note=f"change of used_memory; {describe_redis(server)}",
            unit="bytes",
        )
    harness.report_figures([figure], record)


@app.command()
def growth(
    dim: Dim = 8,
    few: Products = 10_000,
    many: Products = 1_000_000,
    candidates: Candidates = 500,
    rounds: RoundsOption = 10,
    calls: Calls = 20,
    record: RecordOption = False,
) -> None:
    """Compare the same request on a store with few products and with many, with small rows."""
    figures = []
    with open_redis() as (root, server):
        for name, store, url in (
            ("Redis", {"type": REDIS, "connection_string": server.address}, f"redis://{server.address}"),
            ("LMDB", {"type": LMDB, "path": str(root / "lmdb")}, f"lmdb://{root / 'lmdb'}"),
        ):
            with (
                open_project(root / f"{name}_few", store, few, dim) as few_store,
                open_project(root / f"{name}_many", store, many, dim) as many_store,
                OnlineReader(url, project=f"{name}_few") as small,
                OnlineReader(url, project=f"{name}_many") as large,
            ):
                turns = PairedComparison(rounds, calls, describe_redis(server) if name == "Redis" else LMDB_VERSION)
                what, against = f"fetch {candidates} of {few:,} products, {dim}-d, {name}", f"the same of {many:,}"
                figures.append(
                    turns.compare(
                        what,
                        fetch_with_reader(small, few, candidates),
                        against,
                        fetch_with_reader(large, many, candidates),
                    )
                )
                if name == "LMDB":
                    get = open_getmulti(root / "lmdb")
                    figures.append(
                        turns.compare(
                            f"{what}, raw getmulti",
                            fetch_raw(get_online_table(few_store), get, few, candidates, cast_with_ours),
                            against,
                            fetch_raw(get_online_table(many_store), get, many, candidates, cast_with_ours),
                        )
                    )
    harness.report_figures(figures, record)


@contextmanager
def open_redis() -> Iterator[tuple[Path, servers.RedisServer]]:
    """Yield a temporary folder and a Redis server."""
    with tempfile.TemporaryDirectory() as folder, servers.redis_server(Path(folder) / "redis") as server:
        yield Path(folder), server


if __name__ == "__main__":
    app(standalone_mode=False)
