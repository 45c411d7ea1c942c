"""Embedding rows as Parquet parts in a folder: how a machine that only encodes hands them over.

    run.json               encoder version, the catalogue's rows and digest, rows of a part
    part-00000.parquet     schema.PRODUCT_EMBEDDING
    unusable-00000.parquet product_id, column, reason, value
    part-00000_done        empty: both are whole

A file takes its name when it is whole, and the marker is written last, so a killed run leaves nothing to mistake.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.errors import VitrineError
from producers.encoders.pipeline import EncodedChunk, Unusable

UNUSABLE = pa.schema([(name, pa.string()) for name in ("product_id", "column", "reason", "value")])


@dataclass(frozen=True)
class RunDescription:
    """What the parts of a folder were made from."""

    encoder_version: str
    catalogue: str
    """Digest of the Parquet file's footer."""
    rows: int
    rows_a_part: int

    @property
    def parts(self) -> int:
        """How many there are when all are done."""
        return -(-self.rows // self.rows_a_part)


def begin_run(folder: Path, run: RunDescription) -> None:
    """Make the folder, or go on in one of the same run.

    Raises:
        VitrineError: the folder holds parts of another run, or something else.
    """
    if (folder / "run.json").exists():
        found = read_description(folder)
        if found != run:
            raise VitrineError(
                f"{folder} holds parts of another run ({found.encoder_version}, {found.rows:,} rows, "
                f"{found.rows_a_part:,} a part), this is {run.encoder_version}, {run.rows:,} rows, "
                f"{run.rows_a_part:,} a part: commit those and name another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VitrineError(f"{folder} holds something that is no run: name a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    _whole(folder / "run.json", json.dumps(asdict(run)).encode())


def read_description(folder: Path) -> RunDescription:
    """What the parts of a folder were made from.

    Raises:
        VitrineError: it holds none.
    """
    try:
        return RunDescription(**json.loads((folder / "run.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise VitrineError(f"{folder}: no folder of parts, its run.json cannot be read ({error})") from error


def is_done(folder: Path, part: int) -> bool:
    """Whether a part is whole."""
    return (folder / f"part-{part:05}_done").exists()


def write_shard(folder: Path, part: int, made: EncodedChunk) -> None:
    """Write a part and its marker."""
    _table(folder / f"part-{part:05}.parquet", made.rows)
    unusable = pa.Table.from_pylist([asdict(each) for each in made.unusable], UNUSABLE)
    _table(folder / f"unusable-{part:05}.parquet", unusable)
    _whole(folder / f"part-{part:05}_done", b"")


def read_shards(folder: Path) -> Iterator[EncodedChunk]:
    """The parts that are whole, in their order.

    Raises:
        VitrineError: a part is missing or unreadable though marked, or its rows are of another shape or encoder.
    """
    run = read_description(folder)
    for part in (part for part in range(run.parts) if is_done(folder, part)):
        file = folder / f"part-{part:05}.parquet"
        try:
            rows = pq.read_table(file)
            unusable = pq.read_table(folder / f"unusable-{part:05}.parquet").to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise VitrineError(f"{file} is marked as done and cannot be read ({error}); encode it again") from error
        if not rows.schema.equals(schema.PRODUCT_EMBEDDING):
            raise VitrineError(f"{file} holds {rows.schema.names}, embedding rows were expected")
        if set(rows["encoder_version"].unique().to_pylist()) - {run.encoder_version}:
            raise VitrineError(f"{file} holds rows of another encoder than {run.encoder_version}, which run.json names")
        yield EncodedChunk(rows, tuple(Unusable(**each) for each in unusable))


def _table(file: Path, rows: pa.Table) -> None:
    pq.write_table(rows, _beside(file), compression="zstd")
    os.replace(_beside(file), file)


def _whole(file: Path, content: bytes) -> None:
    _beside(file).write_bytes(content)
    os.replace(_beside(file), file)


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.writing")
