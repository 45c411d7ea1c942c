"""Encode a catalogue on a machine that has torch, transformers and pyarrow, but no store: Parquet in, Parquet out.

    python -m producers.encoders.run --encoder DIR --catalogue catalogue.parquet --output parts/

`produce hand-out` writes the catalogue file. Where the store is, `produce commit --parts parts/` adds the rows. A run
that was killed continues after the last complete part.
"""

import argparse
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.cores import limit_thread_pools
from feature_repo.errors import InvalidInputError, VitrineError
from producers.encoders import load, shards
from producers.encoders.checkpoint_version import TRAINING_PRODUCTS_FILE
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.licence import read_licence, write_licence
from producers.encoders.pipeline import HASH_COLUMNS, EmbeddingRows, Unusable, build_embedding_rows, encode_chunks
from producers.encoders.stage_seconds import StageSeconds

COLUMNS = [schema.PRODUCT_ID, "title", "image", "image_bytes", schema.EVENT_TIMESTAMP]
ROWS_PER_PART = 16_384
"""Catalogue rows of a part, if the caller does not say."""
ROWS_PER_CHUNK = 1024
"""Catalogue rows that are read and encoded at a time. Their images are in memory, those of a whole part are not."""


def encode(
    encoder: str,
    catalogue: Path,
    out: Path,
    *,
    now: datetime,
    rows_per_part: int = ROWS_PER_PART,
    workers: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> str:
    """Encode a catalogue part by part, and write the parts to a folder. Parts that are complete already are skipped.

    A part is the embedding rows of `rows_per_part` catalogue rows, in their order; the last part may be of fewer. A
    product without any vector has no row; the part's other file says why. After each part a line goes to standard
    error.

    Args:
        encoder: checkpoint directory or hub name.
        catalogue: Parquet file with COLUMNS of schema.CATALOGUE. HASH_COLUMNS are copied to the rows if it has them.
        out: folder of the parts, laid out as shards.py says; created if it does not exist. If it exists, it must be
            empty or hold parts of the same encoder, catalogue and `rows_per_part`.
        now: the created timestamp of the rows, with a time zone.
        rows_per_part: catalogue rows per part, at least 1.
        workers: number of decoding processes; None starts one per core that this process may use.
        device: where the model runs, such as "cuda:0"; None takes the first GPU, or the CPU if there is none.
        dtype: float32, bfloat16 or float16; None takes bfloat16 on a GPU and float32 on a CPU.

    Returns:
        One line with what this call encoded and the time per stage.

    Raises:
        UsageError: there is no such dtype.
        VitrineError: the encoder cannot be loaded.
        InvalidInputError: the catalogue is not a readable Parquet file or lacks a column, or `out` holds other files.
        ConflictError: `out` holds parts of another run.
    """
    file, digest = _open_catalogue(catalogue)
    model = load(encoder, device=device, dtype=dtype)
    run = shards.RunDescription(model.version, digest, file.metadata.num_rows, rows_per_part)
    shards.begin_run(out, run)
    _copy_training_files(encoder, out)
    missing = [part for part in range(run.parts) if not shards.is_done(out, part)]
    start, seconds, rows, unusable = time.perf_counter(), StageSeconds(), 0, 0
    # The rows of an encoder without an image tower do not depend on the image, so they carry no image hash.
    hashes = [name for name in HASH_COLUMNS if model.has_images or name != "image_hash"]
    catalogue_chunks = _read_parts(file, hashes, run, missing)
    with open_decoding_pool(workers) as pool, closing(encode_chunks(catalogue_chunks, model, pool)) as stream:
        for part in missing:
            expected, encoded, part_rows = run.count_rows(part), 0, list[EmbeddingRows]()
            while encoded < expected:
                chunk = next(stream)
                part_rows.append(build_embedding_rows(chunk, model, now))
                encoded, seconds = encoded + len(chunk.catalogue), seconds + chunk.seconds
            write_start = time.perf_counter()
            embedding = _join_rows(part_rows)
            shards.write_shard(out, part, embedding)
            seconds += StageSeconds(write=time.perf_counter() - write_start)
            rows, unusable = rows + embedding.rows.num_rows, unusable + len(embedding.unusable)
            sys.stderr.write(f"part {part + 1} of {run.parts}\n")
    elapsed = time.perf_counter() - start
    return (
        f"{model.version}: {rows:,} products encoded in {elapsed:.1f} s ({rows / elapsed:,.0f}/s), "
        f"{unusable:,} images and titles unusable, {run.parts - len(missing):,} parts complete before; {seconds}"
    )


def _copy_training_files(encoder: str, out: Path) -> None:
    """Copy the encoder's licence and the list of products that it was trained on, so that `produce commit` stores them.

    What the encoder does not state is left out.
    """
    if (Path(encoder) / TRAINING_PRODUCTS_FILE).is_file():
        shutil.copyfile(Path(encoder) / TRAINING_PRODUCTS_FILE, out / TRAINING_PRODUCTS_FILE)
    write_licence(out, read_licence(encoder))


def _open_catalogue(catalogue: Path) -> tuple[pq.ParquetFile, str]:
    """Return the file, and a digest of its footer, which has offset, size and statistics of every column chunk.

    Raises:
        InvalidInputError: it is not a readable Parquet file, or lacks one of COLUMNS.
    """
    try:
        file = pq.ParquetFile(catalogue)
        with catalogue.open("rb") as stream:
            stream.seek(-8, os.SEEK_END)
            length = int.from_bytes(stream.read(4), "little")
            stream.seek(-8 - length, os.SEEK_END)
            digest = hashlib.sha256(stream.read(length)).hexdigest()
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidInputError(f"{catalogue}: not a readable Parquet file ({error})") from error
    missing = sorted(set(COLUMNS) - set(file.schema_arrow.names))
    if missing:
        raise InvalidInputError(f"{catalogue} has no column {', '.join(missing)}; create it with `produce hand-out`")
    return file, digest


def _read_parts(
    file: pq.ParquetFile, hashes: list[str], run: shards.RunDescription, parts: Iterable[int]
) -> Iterator[pa.Table]:
    """Yield the catalogue rows of some parts, in chunks of at most ROWS_PER_CHUNK rows that are each of one part.

    The parts are cut by rows. Arrow may end a batch early, where a dictionary or 2 GB of images end, so the batches of
    a file say nothing about its parts.

    Args:
        file: the catalogue.
        hashes: columns that are read if the file has them.
        run: the number of rows, and rows of a part.
        parts: numbers of the parts, from 0, ascending.
    """
    columns = COLUMNS + [name for name in hashes if name in file.schema_arrow.names]
    batches, batch, first = file.iter_batches(ROWS_PER_CHUNK, columns=columns), None, 0
    for part in parts:
        row = part * run.rows_a_part
        end = row + run.count_rows(part)
        while row < end:
            while batch is None or first + len(batch) <= row:
                first += 0 if batch is None else len(batch)
                batch = next(batches)
            chunk = batch.slice(row - first, end - row)
            yield pa.Table.from_batches([chunk]).select(columns)
            row += len(chunk)


def _join_rows(parts: list[EmbeddingRows]) -> EmbeddingRows:
    """Return the embedding rows of the chunks of a part as one."""
    unusable: list[Unusable] = [one for part in parts for one in part.unusable]
    return EmbeddingRows(pa.concat_tables([part.rows for part in parts]), tuple(unusable))


def main() -> None:
    """Run the command with the arguments of the process, and print one line to standard output.

    The process exits with 1 and a message if the encoding fails, with 2 for a wrong argument. argparse is used, because
    the machine has only what encoding needs.
    """
    parser = argparse.ArgumentParser(
        prog="python -m producers.encoders.run", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--encoder", required=True, help="checkpoint directory or hub name")
    parser.add_argument("--catalogue", required=True, type=Path, help="Parquet file from `produce hand-out`")
    parser.add_argument("--output", "--out", dest="out", required=True, type=Path, help="folder for the parts")
    parser.add_argument(
        "--rows-per-part", type=int, default=ROWS_PER_PART, help="catalogue rows per part (default: %(default)s)"
    )
    # The former name of the option.
    parser.add_argument(
        "--rows-a-part", dest="rows_per_part", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--workers", type=int, help="decoding processes (default: one per core that this process may use)"
    )
    parser.add_argument("--device", help='such as "cuda:0" (default: the first GPU, else the CPU)')
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: bfloat16 on a GPU, float32 on the CPU)")
    options = vars(parser.parse_args())
    if options["rows_per_part"] < 1 or (options["workers"] is not None and options["workers"] < 1):
        parser.error("--rows-per-part and --workers must be at least 1")
    # Threads that spin while they wait slow torch down beside decoding processes. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    limit_thread_pools()
    try:
        sys.stdout.write(encode(now=datetime.now(UTC), **options) + "\n")
    except VitrineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
