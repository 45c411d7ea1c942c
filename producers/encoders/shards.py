"""A folder of Parquet parts with embedding rows: how a machine that only encodes hands them over.

    run.json               encoder version, digest and rows of the catalogue, rows of a part
    part-00000.parquet     schema.PRODUCT_EMBEDDING
    unusable-00000.parquet product_id, column, reason, value
    part-00000_done        empty; both files of the part are complete

A file gets its name when it is complete, and the marker is written last. So what a killed run leaves behind cannot be
mistaken for a complete part.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.errors import ConflictError, CorruptDataError, EncoderMismatchError, InvalidInputError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json
from producers.encoders.pipeline import NO_CONTENT_COLUMN, EmbeddingRows, Unusable

UNUSABLE = pa.schema([(name, pa.string()) for name in ("product_id", "column", "reason", "value")])


@dataclass(frozen=True)
class RunDescription:
    """What the parts of a folder are made from; the fields are the keys of run.json."""

    encoder_version: str
    """`name@fingerprint` of the encoder."""
    catalogue: str
    """SHA-256 of the footer of the catalogue's Parquet file, in hex digits."""
    rows: int
    """Rows of the catalogue."""
    rows_a_part: int
    """Rows of the catalogue that a part is made from, at least 1; the last part may have fewer."""

    @property
    def parts(self) -> int:
        """Number of parts of a complete run; 0 for a catalogue without rows."""
        return -(-self.rows // self.rows_a_part)

    def count_rows(self, part: int) -> int:
        """Return how many rows of the catalogue a part, numbered from 0, is made from."""
        return min(self.rows_a_part, self.rows - part * self.rows_a_part)


def begin_run(folder: Path, run: RunDescription) -> None:
    """Create the folder of a run with its run.json, or continue in a folder of the same run, which is not changed.

    Args:
        folder: need not exist, nor need its parents; may be empty.
        run: what the parts will be made from.

    Raises:
        ConflictError: the folder holds parts of another run: one field of its run.json differs.
        InvalidInputError: the folder holds something else, or is a file.
        NotFoundError: the folder has a run.json that cannot be read.
    """
    if (folder / "run.json").exists():
        existing = read_description(folder)
        if existing != run:
            raise ConflictError(
                f"{folder} holds parts of another run ({existing.encoder_version}, {existing.rows:,} rows, "
                f"{existing.rows_a_part:,} a part), this is {run.encoder_version}, {run.rows:,} rows, "
                f"{run.rows_a_part:,} a part: commit those and name another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(f"{folder} holds something that is not a run: name a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    _write_bytes(folder / "run.json", json.dumps(asdict(run)).encode())


def read_description(folder: Path) -> RunDescription:
    """Return what the run.json of a folder says.

    Raises:
        NotFoundError: it is missing or cannot be read.
    """
    try:
        return RunDescription(**parse_json((folder / "run.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise NotFoundError(f"{folder}: not a folder of parts, its run.json cannot be read ({error})") from error


def is_done(folder: Path, part: int) -> bool:
    """Return whether a part, numbered from 0, has the marker that it is complete; its files are not looked at.

    False if the folder does not exist.
    """
    return (folder / f"part-{part:05}_done").exists()


def write_shard(folder: Path, part: int, embedding: EmbeddingRows) -> None:
    """Write a part and then the marker that it is complete; an existing part of that number is replaced.

    Args:
        folder: folder of the run, from `begin_run`.
        part: number of the part, from 0.
        embedding: rows and unusable contents of the part; both may be empty.
    """
    _write_table(folder / f"part-{part:05}.parquet", embedding.rows)
    unusable = pa.Table.from_pylist([asdict(each) for each in embedding.unusable], UNUSABLE)
    _write_table(folder / f"unusable-{part:05}.parquet", unusable)
    _write_bytes(folder / f"part-{part:05}_done", b"")


def read_shards(folder: Path) -> Iterator[EmbeddingRows]:
    """Yield the complete parts of a folder in the order of their numbers; incomplete ones are skipped.

    An error comes when its part is reached, after the parts before it. A folder without complete parts yields nothing.

    Raises:
        NotFoundError: the folder has no readable run.json.
        CorruptDataError: a part is marked as done, but is missing, unreadable, has other columns, or lacks products:
            each product of the part must have a row, or be among the unusable as one that has none.
        EncoderMismatchError: a part has rows of another encoder than run.json names.
    """
    run = read_description(folder)
    for part in (part for part in range(run.parts) if is_done(folder, part)):
        file = folder / f"part-{part:05}.parquet"
        try:
            rows = pq.read_table(file)
            unusable = pq.read_table(folder / f"unusable-{part:05}.parquet").to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise CorruptDataError(f"{file} is marked as done and cannot be read ({error}); encode it again") from error
        if not rows.schema.equals(schema.PRODUCT_EMBEDDING):
            raise CorruptDataError(f"{file} holds {rows.schema.names}, embedding rows were expected; encode it again")
        if set(rows["encoder_version"].unique().to_pylist()) - {run.encoder_version}:
            raise EncoderMismatchError(
                f"{file} holds rows of another encoder than {run.encoder_version}, which run.json names; encode it "
                "again"
            )
        present = len(rows) + sum(each["column"] == NO_CONTENT_COLUMN for each in unusable)
        if present != run.count_rows(part):
            raise CorruptDataError(
                f"{file} holds {present:,} of the {run.count_rows(part):,} products of its part, so "
                f"{run.count_rows(part) - present:,} are missing; remove {file.stem}_done beside it and encode again"
            )
        yield EmbeddingRows(rows, tuple(Unusable(**each) for each in unusable))


def _write_table(file: Path, rows: pa.Table) -> None:
    with replace_atomically(file) as unfinished:
        pq.write_table(rows, unfinished, compression="zstd")


def _write_bytes(file: Path, content: bytes) -> None:
    with replace_atomically(file) as unfinished:
        unfinished.write_bytes(content)
