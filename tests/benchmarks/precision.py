"""What float16 and int8 cost: vectors packed into rows of each storage and read back, beside the vectors themselves.

    python -m tests.benchmarks.precision                                            clustered vectors, drawn at random
    python -m tests.benchmarks.precision --vectors TABLE --column fused_vector      a Delta table or a .parquet file

Cosine error: 1 - cosine of a vector and its stored form. Neighbours kept: of the 10 nearest by cosine among all others,
how many still are among the 10 nearest where every vector, the query's too, is the stored one; the mean over queries.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from numpy.typing import NDArray

from feature_repo.tables import columns, delta, files
from feature_repo.tables.decode import decode
from feature_repo.tables.encode import encode
from feature_repo.tables.layout import STORAGES, Field, Layout
from tests.benchmarks import harness

TABLE = Path(__file__).parent / "PRECISION.md"
NEAREST = 10
BATCH = 256


def main(
    vectors: Annotated[str, typer.Option(help="Table of real vectors; clustered random ones if not given.")] = "",
    column: Annotated[str, typer.Option(help="Its column of vectors.")] = "fused_vector",
    products: Annotated[int, typer.Option(help="Vectors, at most.")] = 20_000,
    dim: Annotated[int, typer.Option(help="Width of the random vectors.")] = 128,
    clusters: Annotated[int, typer.Option(help="Clusters of the random vectors.")] = 400,
    queries: Annotated[int, typer.Option(help="Vectors whose neighbours are looked for.")] = 2_000,
    record: Annotated[bool, typer.Option(help="Write the table to PRECISION.md.")] = False,
) -> None:
    """Cosine error, neighbours kept and bytes of a row, for each storage."""
    whole = given(Path(vectors), column)[:products] if vectors else clustered(products, dim, clusters)
    asked = np.random.default_rng(1).choice(len(whole), min(queries, len(whole)), replace=False)
    exact = nearest(whole, asked)
    what = f"`{column}` of a table given" if vectors else f"drawn around {clusters} random centres"
    lines = [
        "# What the storage of a vector costs",
        "",
        f"{len(whole):,} vectors of {whole.shape[1]}, {what}; {len(asked):,} queries.",
        f"Written by `{harness.command()}`.",
        "",
        "| storage | cosine error, mean | largest | of the 10 nearest kept | bytes of a row with the vector alone |",
        "| --- | --- | --- | --- | --- |",
    ]
    for storage in STORAGES:
        stored, size = through_rows(whole, storage)
        errors = 1 - (unit(whole) * unit(stored)).sum(axis=1)
        kept = (
            np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, nearest(stored, asked), strict=True)]) / NEAREST
        )
        lines.append(f"| {storage} | {abs(errors).mean():.1e} | {abs(errors).max():.1e} | {kept:.2%} | {size} |")
    print("\n".join(lines[2:]))
    if record:
        TABLE.write_text("\n".join(lines) + "\n")


def clustered(count: int, dim: int, clusters: int) -> NDArray[np.float32]:
    """Unit vectors around random centres, at a cosine of some 0.7 to them."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((clusters, dim)))
    spread = unit(rng.standard_normal((count, dim)))
    return unit(centres[rng.integers(0, clusters, count)] + spread).astype(np.float32)


def given(table: Path, column: str) -> NDArray[np.float32]:
    """The distinct vectors of a table that are there."""
    rows = delta.read(table, [column]) if delta.exists(table) else files.read(table).select([column])
    found = rows[column].drop_null().combine_chunks()
    matrix = found.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(found), -1)
    return np.unique(matrix, axis=0)


def through_rows(vectors: NDArray[np.float32], storage: str) -> tuple[NDArray[np.float32], int]:
    """The vectors after they were packed and read, and the bytes of a row."""
    field = Field("vector", "float_list", storage, vectors.shape[1])
    layout = Layout.of([field])
    event = np.zeros(len(vectors), np.int64)
    rows = encode(layout, {"vector": columns.from_arrow(field, lists(vectors))}, event, None, {})
    found = decode(rows, {layout.fingerprint: layout}, layout.fields, {})
    return columns.to_numpy(found.columns["vector"]), len(rows[0])


def lists(vectors: NDArray[np.float32]) -> pa.Array:
    ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), vectors.reshape(-1))


def nearest(vectors: NDArray[np.float32], asked: NDArray[np.int64]) -> NDArray[np.int64]:
    """[queries, NEAREST], the rows nearest by cosine to each row asked for, itself left out."""
    units = unit(vectors).astype(np.float32)
    found = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        cosines = units[part] @ units.T
        cosines[np.arange(len(part)), part] = -2
        found.append(np.argpartition(cosines, -NEAREST, axis=1)[:, -NEAREST:])
    return np.concatenate(found)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Each vector divided by its length."""
    exact = vectors.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-30)


if __name__ == "__main__":
    typer.run(main)
