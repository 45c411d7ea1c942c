"""Encode a catalogue on a machine that has torch, transformers and pyarrow, and no store: Parquet in, Parquet out.

    python -m producers.encoders.run --encoder DIR --catalogue catalogue.parquet --output parts/

The catalogue comes from `produce hand-out`, and `produce commit --parts parts/` adds the rows where the store is.
Killed and started again, it goes on after the last whole part.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.errors import VitrineError
from producers.encoders import load, shards
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.pipeline import HASH_COLUMNS, StageSeconds, encode_chunks

COLUMNS = [schema.PRODUCT_ID, "title", "image", "image_bytes", schema.EVENT_TIMESTAMP]
ROWS_PER_PART = 16_384


def encode(
    encoder: str,
    catalogue: Path,
    out: Path,
    *,
    now: datetime,
    rows_a_part: int = ROWS_PER_PART,
    workers: int | None = None,
    device: str | None = None,
) -> str:
    """Write the parts that are not there yet.

    Args:
        encoder: checkpoint directory or hub name.
        catalogue: Parquet with COLUMNS of schema.CATALOGUE; HASHES, where it has them, go into the rows.
        out: folder of the parts; see parts.py.
        now: the created timestamp.
        rows_a_part: catalogue rows of a part.
        workers: decoding processes; one per core if not said.
        device: see `load`.

    Returns:
        One line: what was encoded, and where the time went.

    Raises:
        VitrineError: the encoder or the catalogue cannot be read, or `out` holds parts of another run.
    """
    file, digest = _opened(catalogue)
    model = load(encoder, device=device)
    run = shards.RunDescription(model.version, digest, file.metadata.num_rows, rows_a_part)
    shards.begin_run(out, run)
    todo = [part for part in range(run.parts) if not shards.is_done(out, part)]
    start, seconds, rows, unusable = time.perf_counter(), StageSeconds(), 0, 0
    with open_decoding_pool(workers) as pool:
        # Without an image tower a row answers for its title alone, whatever its picture: plan.py compares it so.
        hashes = [name for name in HASH_COLUMNS if model.has_images or name != "image_hash"]
        chunks = _chunks(file, hashes, rows_a_part, set(todo))
        for part, made in zip(todo, encode_chunks(chunks, model, pool, now), strict=True):
            began = time.perf_counter()
            shards.write_shard(out, part, made)
            seconds += made.seconds._replace(write=time.perf_counter() - began)
            rows, unusable = rows + made.rows.num_rows, unusable + len(made.unusable)
            print(f"part {part + 1} of {run.parts}", file=sys.stderr)
    elapsed = time.perf_counter() - start
    return (
        f"{model.version}: {rows:,} products encoded in {elapsed:.1f} s ({rows / elapsed:,.0f}/s), "
        f"{unusable:,} pictures and titles unusable, {run.parts - len(todo):,} parts done before; {seconds}"
    )


def _opened(catalogue: Path) -> tuple[pq.ParquetFile, str]:
    """The file and the digest of its footer, which names every column chunk's place, size and statistics."""
    try:
        file = pq.ParquetFile(catalogue)
        with catalogue.open("rb") as stream:
            stream.seek(-8, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(-8 - length, os.SEEK_END)
            digest = hashlib.sha256(stream.read(length)).hexdigest()
    except (OSError, pa.ArrowInvalid) as error:
        raise VitrineError(f"{catalogue}: not a Parquet file that can be read ({error})") from error
    missing = sorted(set(COLUMNS) - set(file.schema_arrow.names))
    if missing:
        raise VitrineError(f"{catalogue} has no column {', '.join(missing)}; make it with `produce hand-out`")
    return file, digest


def _chunks(file: pq.ParquetFile, hashes: list[str], rows: int, wanted: set[int]) -> Iterator[pa.Table]:
    columns = COLUMNS + [name for name in hashes if name in file.schema_arrow.names]
    for part, batch in enumerate(file.iter_batches(rows, columns=columns)):
        if part in wanted:
            yield pa.Table.from_batches([batch]).select(columns)


def main() -> None:
    """The command line: argparse, because the machine has what encoding needs and no more."""
    options = argparse.ArgumentParser(
        prog="python -m producers.encoders.run", description=(__doc__ or "").split("\n")[0]
    )
    options.add_argument("--encoder", required=True, help="checkpoint directory or hub name")
    options.add_argument("--catalogue", required=True, type=Path, help="Parquet, from `produce hand-out`")
    options.add_argument("--output", "--out", dest="out", required=True, type=Path, help="folder of the parts")
    options.add_argument("--rows-a-part", type=int, default=ROWS_PER_PART)
    options.add_argument("--workers", type=int, help="decoding processes; one per core if not said")
    options.add_argument("--device", help='such as "cuda:0"; the first GPU, else the CPU, if not said')
    given = vars(options.parse_args())
    if given["rows_a_part"] < 1 or (given["workers"] is not None and given["workers"] < 1):
        options.error("--rows-a-part and --workers are 1 at the least")
    # Threads that spin while they wait make torch slow beside decoding processes; read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        print(encode(now=datetime.now(UTC), **given))
    except VitrineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
