"""The index of products beside a plain faiss script of the same graph, and the cost of adding products.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.index [--products 1000000] [--record]
    OMP_NUM_THREADS=1 python -m tests.benchmarks.index --store demo/feature_store.yaml [--record]

Vectors of 128 values are a seeded latent of 32 values, mapped linearly, plus noise; queries are drawn likewise. All
searches run on one thread. A category holds 1% of the products. 10,000 products are added to an index of --products and
to one of a tenth of that, but at least SMALLEST, in turns; the append alone is measured, without the tables.

With --store the vectors are those of the products of a store, such as the generated shop's, and the queries their text
vectors; only searches are measured, over a graph, however few products there are.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from feature_repo import config, schema
from feature_repo.arrow.take import to_matrix
from feature_repo.index import nearest, update
from feature_repo.index.filters import ProductFilter
from feature_repo.index.manifest import write_manifest
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.recall import compute_recall
from feature_repo.index.rows import INDEX_ROWS
from feature_repo.index.update import IndexedProducts, append_products, build_index
from feature_repo.offline import delta, production
from tests.benchmarks import harness

WIDTH, LATENT, NOISE = 128, 32, 0.1
CATEGORIES = 100
TOP_K = 10
ADDED = 10_000
QUERIES = 300
SMALLEST = 60_000
"""An index of fewer products has no graph."""
VECTOR = "image_vector"


def make_vectors(count: int, seed: int) -> np.ndarray:
    mapping = np.random.default_rng(0).normal(size=(LATENT, WIDTH)).astype(np.float32)
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, LATENT)).astype(np.float32) @ mapping / np.sqrt(LATENT)
    vectors += NOISE * rng.normal(size=vectors.shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_products(count: int, seed: int, prefix: str = "p") -> IndexedProducts:
    numbers = np.arange(count)
    columns: dict[str, Any] = {one.name: pa.nulls(count, one.type) for one in INDEX_ROWS}
    columns["product_id"] = pa.array([f"{prefix}{number}" for number in numbers])
    columns["category"] = pa.array([f"category {number}" for number in range(CATEGORIES)]).take(
        pa.array(np.random.default_rng(seed).integers(0, CATEGORIES, count))
    )
    columns["price"] = pa.array(np.random.default_rng(seed + 1).uniform(1, 100, count))
    return IndexedProducts(pa.table(columns).select(INDEX_ROWS.names), {VECTOR: make_vectors(count, seed)}, {})


def measure_search(index: ProductIndex, queries: np.ndarray) -> None:
    """Print median times and recall, unfiltered and under the filter."""
    where = ProductFilter(categories=("category 7",))
    for name, select in (("unfiltered", lambda: None), ("category of 1%", lambda: index.select(where))):
        taken, found, truth = [], [], []
        for query in queries:
            start = time.perf_counter()
            rows, _ = index.search(VECTOR, query, TOP_K, select())
            taken.append(time.perf_counter() - start)
            found.append(rows)
            truth.append(index.search(VECTOR, query, TOP_K, select(), exact=True)[0])
        p50, p99 = np.percentile(taken, (50, 99)) * 1e3
        print(f"{name}: p50 {p50:.3f} ms, p99 {p99:.3f} ms, recall@{TOP_K} {compute_recall(found, truth):.4f}")


def compare_with_faiss(
    index: ProductIndex, queries: np.ndarray, rounds: int, what: str = "products"
) -> harness.BenchmarkFigure:
    """Compare searches with bare calls of faiss on the same graph with the same number of candidates."""
    graph = index.segments[0].vectors[VECTOR].graph
    candidates = index.manifest.recall[VECTOR]["shares"][0]["candidates"]
    parameters = faiss.SearchParametersHNSW(efSearch=candidates)
    recall = index.manifest.recall[VECTOR]["shares"][0]["recall"]

    def ours() -> None:
        for query in queries:
            index.search(VECTOR, query, TOP_K)

    def plain() -> None:
        for query in queries:
            graph.search(query[None], TOP_K, params=parameters)

    seconds = {
        name: [one / len(queries) for one in taken]
        for name, taken in harness.take_turns({"ours": ours, "faiss": plain}, rounds).items()
    }
    return harness.compare_sides(
        f"top {TOP_K} of {len(index.flags):,} {what}, {queries.shape[1]}-d",
        seconds,
        "ours",
        "faiss",
        f"one thread; {candidates} candidates, recall@{TOP_K} {recall}",
    )


def measure_store(store: Path, rounds: int) -> harness.BenchmarkFigure:
    """Measure searches of the image vectors of a store by text vectors, over a graph."""
    settings = config.load(store)
    version = production.read_version(settings.offline)
    rows = delta.read(settings.table(schema.EMBEDDING_TABLE), ["product_id", VECTOR, "text_vector", "encoder_version"])
    version = version or rows["encoder_version"][0].as_py()
    rows = rows.filter(pc.field("encoder_version") == version).drop_null()
    matrices = {name: to_matrix(rows[name]) for name in (VECTOR, "text_vector")}
    columns = [rows["product_id"] if one.name == "product_id" else pa.nulls(len(rows), one.type) for one in INDEX_ROWS]
    products = IndexedProducts(pa.table(columns, schema=INDEX_ROWS), matrices, {})
    update.FLAT_ROWS = nearest.EXACT_ROWS = 0
    with tempfile.TemporaryDirectory() as folder:
        build_index(Path(folder) / "index", version, products, has_keywords=False)
        index = open_index(Path(folder) / "index")
        drawn = np.random.default_rng(0).choice(len(rows), min(QUERIES, len(rows)), replace=False)
        queries = matrices["text_vector"][drawn]
        print(f"{len(rows):,}: {index.manifest.recall[VECTOR]['shares']}", flush=True)
        found = [index.search(VECTOR, query, TOP_K)[0] for query in queries]
        truth = [index.search(VECTOR, query, TOP_K, exact=True)[0] for query in queries]
        print(f"recall@{TOP_K} {compute_recall(found, truth):.4f}")
        return compare_with_faiss(index, queries, rounds, f"pictures of {version} by titles")


def measure_append(index: ProductIndex, added: IndexedProducts) -> tuple[float, float]:
    """Return wall and CPU seconds of adding products; the index is as before afterwards."""
    before = index.manifest
    flags = (index.folder / before.flags).read_bytes()
    start, cpu = time.perf_counter(), time.process_time()
    append_products(index, added)
    seconds = time.perf_counter() - start, time.process_time() - cpu
    (index.folder / before.flags).write_bytes(flags)
    write_manifest(index.folder, before)
    return seconds


def main(
    products: Annotated[int, typer.Option(min=100_000, help="Products of the larger index.")] = 1_000_000,
    rounds: harness.RoundsOption = 7,
    record: harness.RecordOption = False,
    folder: Annotated[Path | None, typer.Option(help="Keep the indexes here, and use those that are there.")] = None,
    store: Annotated[Path | None, typer.Option(help="feature_store.yaml of the vectors to use instead.")] = None,
) -> None:
    """Build both indexes and print the figures."""
    faiss.omp_set_num_threads(1)
    if store is not None:
        harness.report_figures([measure_store(store, rounds)], record)
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = folder or Path(temporary)
        indexes = []
        fewer = max(products // 10, SMALLEST)
        for count in (products, fewer):
            path = root / str(count)
            if not path.exists():
                start = time.process_time()
                build_index(path, "benchmark@1", make_products(count, 1))
                print(f"{count:,} products built in {time.process_time() - start:.0f} CPU seconds", flush=True)
            indexes.append(open_index(path))
        large, small = indexes
        for index in indexes:
            print(f"{len(index.flags):,}: {index.manifest.recall[VECTOR]['shares']}", flush=True)
        queries = make_vectors(QUERIES, 2)
        measure_search(large, queries)
        figures = [compare_with_faiss(large, queries, rounds)]
        added = make_products(ADDED, 3, "new")
        taken: dict[str, list[float]] = {"large": [], "small": []}
        for _ in range(rounds):
            for name, index in (("large", large), ("small", small)):
                wall, cpu = measure_append(index, added)
                taken[name].append(cpu)
                print(f"{ADDED:,} added to {len(index.flags):,}: {wall:.2f} s, {cpu:.2f} CPU s", flush=True)
        figures.append(
            harness.compare_sides(
                f"add {ADDED:,} products to {products:,}",
                taken,
                "large",
                "small",
                f"CPU seconds, one thread; the other side is an index of {fewer:,}",
            )
        )
        harness.report_figures(figures, record)


if __name__ == "__main__":
    typer.run(main)
