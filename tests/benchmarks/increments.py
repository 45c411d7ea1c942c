"""Cost of a day when 10,000 of n products changed, and when none did.

The catalogue and its embeddings exist before: random vectors for all n products, which need no encoding. Then a day's
table with 10,000 changed titles goes through the steps of `produce catalogue` and `produce embeddings`, with a tiny
encoder, and the same table goes through them again. With --pictures each product has an image in one of 10,000 files,
which is recognized by path, size and time.
"""

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer
from PIL import Image

from feature_repo import config, schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.offline import delta
from producers.catalogue import ingest as catalogue
from producers.catalogue import row_hash
from producers.embeddings import existing_rows, plan
from producers.embeddings import run as embeddings
from producers.embeddings import vector_cache as contents
from producers.encoders import load
from producers.encoders.pipeline import EncodedChunk, build_embedding_rows
from tests.benchmarks import harness

Result = TypeVar("Result")
TABLE = Path(__file__).parent / "INCREMENTS.md"
CHANGED = 10_000
FILES = 10_000
BLOCK_ROWS = 1_000_000
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
_TODAY = np.datetime64("2026-06-01", "us")
_YESTERDAY = _TODAY - np.timedelta64(1, "D")


@dataclass(frozen=True)
class DayCost:
    """Seconds of the two steps, and what they did."""

    compare: float
    encode: float
    summary: str
    contents: int
    """Images and titles that were encoded."""


@dataclass(frozen=True)
class IncrementCost:
    """The two days at one size of the catalogue."""

    rows: int
    pictures: bool
    changed: DayCost
    unchanged: DayCost


def measure_days(rows: int, pictures: bool) -> IncrementCost:
    """Measure both days over a catalogue of `rows` products."""
    folder = Path(tempfile.mkdtemp(prefix="increments-"))
    try:
        (folder / "feature_store.yaml").write_text("project: bench\noffline_store:\n  path: offline\n")
        store = config.load(folder / "feature_store.yaml")
        from tests.producers.encoders import checkpoints  # imports torch, which decoding processes must not

        encoder = folder / "tiny"
        checkpoints.clip(encoder)
        if pictures:
            _draw(folder / "pictures")
        file = folder / "products.parquet"
        write_products(file, rows, pictures, changed=0)
        catalogue.ingest_products(store, file, NOW)
        embed_without_an_encoder(store, encoder)
        gc.collect()
        write_products(file, rows, pictures, changed=CHANGED)
        changed = _day(store, encoder, file, NOW + DAY)
        return IncrementCost(rows, pictures, changed, _day(store, encoder, file, NOW + 2 * DAY))
    finally:
        shutil.rmtree(folder)


def _day(store: Settings, encoder: Path, file: Path, now: datetime) -> DayCost:
    compare, taken = _timed(lambda: catalogue.ingest_products(store, file, now))
    encode, done = _timed(
        lambda: embeddings.embed_catalogue(store, str(encoder), now=now, progress=lambda so_far, total: None)
    )
    assert done.encoded == taken.changed
    return DayCost(compare, encode, str(taken), done.images + done.titles)


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def write_products(file: Path, rows: int, pictures: bool, *, changed: int, listed: np.datetime64 = _YESTERDAY) -> None:
    """Write a day's table; `changed` products, spread over the table, have another title today, the others the old one.

    Args:
        file: the Parquet file.
        rows: number of products.
        pictures: whether each product has an image.
        changed: number of products with another title.
        listed: when the products got the old one.
    """
    number = np.arange(rows)
    other = np.zeros(rows, bool)
    other[:: max(1, rows // CHANGED)] = changed > 0
    folder = file.parent / "pictures"
    with pq.ParquetWriter(file, schema.PRODUCTS) as writer:
        for start in range(0, rows, BLOCK_ROWS):
            ids, new = number[start : start + BLOCK_ROWS], other[start : start + BLOCK_ROWS]
            size = len(ids)
            titles = _joined(
                "女童连衣裙 夏季纯棉 款号 ", pa.array(ids).cast(pa.string()), pa.array(np.where(new, " 新款", ""))
            )
            paths = _joined(f"{folder}/", pa.array(ids % FILES).cast(pa.string()), pa.array([".png"] * size))
            columns = {
                "product_id": _joined("sku-", pa.array(ids).cast(pa.string()), pa.array([""] * size)),
                "title": titles,
                "image": paths if pictures else pa.nulls(size, pa.string()),
                "category": pa.array(np.array(["童装>裙", "童装>裤", "童鞋"])[ids % 3]),
                "brand": pa.array(np.array(["Acme", "Bebe"])[ids % 2]),
                "price": pa.array(ids % 97 + 0.5),
                "updated_at": pa.array(np.where(new, _TODAY, listed)).cast(schema.TIMESTAMP),
            }
            writer.write_table(pa.table(columns, schema=schema.PRODUCTS))


def _joined(before: str, middle: pa.Array, after: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(before, middle, after, "")


def _draw(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, 9)).save(folder / f"{number}.png")


def embed_without_an_encoder(store: Settings, encoder: Path) -> None:
    """Write an embedding row with random unit vectors for each catalogue version, as if all had been encoded."""
    model = load(str(encoder))
    state = plan.read_changes(store, model.version)
    assert state is not None
    path, series = store.table(schema.EMBEDDING_TABLE), existing_rows.txn_app_id(model.version)
    generator, version = np.random.default_rng(0), 0
    held: list[pa.RecordBatch] = []
    for batch in [*take.scan(state.new, [*existing_rows.KEY, "title", "image_hash"]).to_batches(), None]:
        if batch is not None:
            held.append(batch)
        if held and (batch is None or sum(map(len, held)) >= BLOCK_ROWS):
            block = pa.Table.from_batches(held)
            vectors = generator.normal(size=(len(block), model.dim)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            block = block.append_column("title_hash", row_hash.hash_contents(block["title"]))
            rows = build_embedding_rows(EncodedChunk(block, vectors, vectors), model, NOW).rows
            version = delta.append_if_version(path, rows, series, version)
            with contents.open_cache(store.offline / contents.FOLDER, model.version, model.dim) as kept:
                vectors_by_hash = dict(zip(block["image_hash"].to_pylist(), vectors, strict=True))
                vectors_by_hash.pop(None, None)
                kept.put(contents.IMAGE, list(vectors_by_hash), np.array([*vectors_by_hash.values()]))
            held = []
    delta.append_if_version(path, schema.PRODUCT_EMBEDDING.empty_table(), series, version, state.markers)


def main(
    sizes: Annotated[list[int], typer.Argument(help="Products of the catalogue.")],
    pictures: Annotated[bool, typer.Option("--pictures", help="Give each product an image in a file.")] = False,
    record: Annotated[bool, typer.Option("--record", help="Add the figures to INCREMENTS.md.")] = False,
) -> None:
    """Measure each size."""
    lines = []
    for size in sizes:
        cost = measure_days(size, pictures)
        changed, unchanged = cost.changed, cost.unchanged
        days = (f"{day.compare:.1f} s | {day.encode:.1f} s | {day.contents:,}" for day in (changed, unchanged))
        where = ", ".join(harness.describe_machine()[name] for name in ("commit", "date", "machine"))
        lines.append(f"| {' | '.join([f'{size:,}' + ', pictures' * pictures, *days, where])} |")
        print(lines[-1], flush=True)
    if record:
        _record(lines)


def _record(lines: list[str]) -> None:
    head = [
        "# Increments",
        "",
        "Seconds of a day over a catalogue of n products: 10,000 of them with another title, and then none. Comparing",
        "reads the day's table whole, and the stored ids, times and digests; all other work depends on the changes.",
        "Written by `python -m tests.benchmarks.increments SIZE... [--pictures] --record`.",
        "",
        "| products | 10,000 changed: compare | encode | contents encoded | none changed: compare | encode "
        "| contents encoded | commit, date, machine |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    harness.replace_rows(TABLE, head, lines)


if __name__ == "__main__":
    typer.run(main)
