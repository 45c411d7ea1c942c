"""Cost of float16 and int8: vectors encoded to rows of each storage and decoded, against the vectors themselves.

    python -m tests.benchmarks.precision vectors                                            random clustered vectors
    python -m tests.benchmarks.precision vectors --vectors TABLE --column fused_vector      a Delta table or Parquet
    python -m tests.benchmarks.precision auc --store feature_repo/feature_store.demo.yaml \\
        --impressions demo/shop/impressions.parquet                                        the result of `make demo`

Cosine error: 1 - cosine of a vector and its stored form. Neighbours kept: the share of the 10 nearest vectors by cosine
that are still among the 10 nearest if every vector, the query included, is stored; the mean over queries. AUC: that of
the ranker with affinity features of stored vectors, minus that with exact ones (precision_auc.py). It needs a
deployment with its log, so `make bench` leaves it out.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from consumers.ranking.training_set import join_views
from feature_repo import config
from feature_repo.arrow.field import STORAGES
from feature_repo.console import StoreOption
from feature_repo.offline import delta, input_files
from feature_repo.offline.input_files import read_impressions
from tests.benchmarks import harness, precision_auc
from tests.benchmarks.stored_vectors import round_trip

TABLE = Path(__file__).parent / "PRECISION.md"
NEAREST = 10
BATCH = 256
TITLE = "# What the storage of a vector costs"
VECTORS, AUC = "In the vectors themselves", "In a ranker's AUC"
Record = Annotated[bool, typer.Option(help="Write the table to PRECISION.md.")]
app = typer.Typer()


@app.command("vectors")
def measure_vectors(
    vectors: Annotated[str, typer.Option(help="Table of vectors; random clustered ones by default.")] = "",
    column: Annotated[str, typer.Option(help="Column of vectors in that table.")] = "fused_vector",
    products: Annotated[int, typer.Option(help="Maximum number of vectors.")] = 20_000,
    dim: Annotated[int, typer.Option(help="Width of the random vectors.")] = 128,
    clusters: Annotated[int, typer.Option(help="Clusters of the random vectors.")] = 400,
    queries: Annotated[int, typer.Option(help="Vectors whose neighbours are compared.")] = 2_000,
    record: Record = False,
) -> None:
    """Measure cosine error, neighbours kept and bytes per row for each storage."""
    whole = (
        read_vectors(Path(vectors), column)[:products] if vectors else draw_clustered_vectors(products, dim, clusters)
    )
    queried = np.random.default_rng(1).choice(len(whole), min(queries, len(whole)), replace=False)
    exact = find_nearest(whole, queried)
    what = f"`{column}` of a table given" if vectors else f"drawn around {clusters} random centres"
    lines = [
        f"{len(whole):,} vectors of {whole.shape[1]}, {what}; {len(queried):,} queries.",
        f"Written by `{harness.format_command()}`.",
        "",
        "| storage | cosine error, mean | largest | of the 10 nearest kept | bytes of a row with the vector alone |",
        "| --- | --- | --- | --- | --- |",
    ]
    for storage in STORAGES:
        stored, size = round_trip(whole, storage)
        errors = 1 - (normalize(whole) * normalize(stored)).sum(axis=1)
        kept = (
            np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, find_nearest(stored, queried), strict=True)])
            / NEAREST
        )
        lines.append(f"| {storage} | {abs(errors).mean():.1e} | {abs(errors).max():.1e} | {kept:.2%} | {size} |")
    _report(VECTORS, lines, record)


@app.command()
def auc(
    impressions: Annotated[Path, typer.Option(help="Log of impressions and clicks, a Parquet or CSV file.")],
    store: StoreOption = None,
    features: Annotated[str, typer.Option(help="Feast feature service to join.")] = "ranking",
    rows: Annotated[
        int, typer.Option(help="Approximate number of impressions, all of randomly drawn users.")
    ] = 200_000,
    test_days: Annotated[float, typer.Option(help="Days at the end of the log that are the test.")] = 10,
    seeds: Annotated[int, typer.Option(help="Training seeds of each ranker.")] = 3,
    replicates: Annotated[int, typer.Option(help="Bootstrap draws of users for each interval.")] = 300,
    record: Record = False,
) -> None:
    """AUC of a ranker with affinity features of stored vectors, less that of exact ones."""
    log = precision_auc.sample_users(read_impressions(impressions, now=datetime.now(UTC)).table, rows)
    data = join_views(config.load(store), features, log)
    done = precision_auc.measure_auc(data, test_days=test_days, seeds=seeds, replicates=replicates, progress=print)
    lines = [
        f"LightGBM with the features of the log and the affinity features of vectors and interests in each storage: "
        f"{done.train:,} impressions to train on, the last {done.test:,} to test on, the same {seeds} seeds; intervals "
        f"of 95% from {replicates} draws of users, paired. `{precision_auc.NONE}`: without the affinity features.",
        f"Written by `{harness.format_command()}`.",
        "",
        "| storage | AUC | less float32's | 95% interval |",
        "| --- | --- | --- | --- |",
    ]
    for line in done.lines:
        low, high = line.ci95
        same = line.name == precision_auc.EXACT
        cells = "|" if same else f"{line.difference:+.5f} | {low:+.5f} to {high:+.5f}"
        lines.append(f"| {line.name} | {line.auc:.5f} | {cells} |")
    _report(AUC, lines, record)


def _report(section: str, lines: list[str], record: bool) -> None:
    """Print a section, and replace it in PRECISION.md if `record` is true."""
    print("\n".join(lines))
    if record:
        parts = TABLE.read_text().split("\n## ")[1:] if TABLE.exists() else []
        sections = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}
        sections[section] = "\n".join(lines)
        written = [f"## {name}\n\n{sections[name]}" for name in (VECTORS, AUC) if name in sections]
        TABLE.write_text("\n\n".join([TITLE, *written]) + "\n")


def draw_clustered_vectors(count: int, dim: int, clusters: int) -> NDArray[np.float32]:
    """Return unit vectors around random centres, with a cosine of about 0.7 to them."""
    rng = np.random.default_rng(0)
    centres = normalize(rng.standard_normal((clusters, dim)))
    spread = normalize(rng.standard_normal((count, dim)))
    return normalize(centres[rng.integers(0, clusters, count)] + spread).astype(np.float32)


def read_vectors(table: Path, column: str) -> NDArray[np.float32]:
    """Return the distinct vectors of a table, without nulls."""
    rows = delta.read(table, [column]) if delta.exists(table) else input_files.read_table(table).select([column])
    vectors = rows[column].drop_null().combine_chunks()
    matrix = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(vectors), -1)
    return np.unique(matrix, axis=0)


def find_nearest(vectors: NDArray[np.float32], queried: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the NEAREST rows by cosine to each queried row, the row itself left out [queries, NEAREST]."""
    units = normalize(vectors).astype(np.float32)
    neighbours = []
    for start in range(0, len(queried), BATCH):
        part = queried[start : start + BATCH]
        cosines = units[part] @ units.T
        cosines[np.arange(len(part)), part] = -2
        neighbours.append(np.argpartition(cosines, -NEAREST, axis=1)[:, -NEAREST:])
    return np.concatenate(neighbours)


def normalize(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each vector divided by its length."""
    exact = vectors.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-30)


if __name__ == "__main__":
    app()
