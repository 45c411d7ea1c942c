"""The lists of nearest products at the start of the last interval of a run, kept so that the next run continues there.

A run has brought every version before that interval up to date. If the impressions and the changes of products before
it are the same now (neighbour_digest.py), so are these versions and the lists, and only later intervals are computed.
The digest of what came before is stored twice: as a marker on the table, with the rows; and as the name of the file,
`neighbour_lists/ENCODER/DIGEST.npz` beside the tables. Without a file of the marker's name, or with fewer rows before
the interval than there were, a run begins at the first impression.

Further markers say what the last run read and how many versions it left: a run of the same log and the same versions of
the tables has nothing to do. If the table has fewer rows than after the last run because of a `produce vacuum`, which
drops only rows that later ones replace, its versions are counted.
"""

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.arrow.timestamps import datetime_to_ticks
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.index.rows import name_folder
from feature_repo.offline import delta, retention
from producers import input_digest
from producers.behaviour.cells import VectorCells
from producers.behaviour.nearest import NearestProducts

FOLDER = "neighbour_lists"
SERIES = "neighbour lists"
"""Name under which `delta.append_if_version` counts the commits of markers."""
_NUMBERS = ("start_us", "versions", "rows", "kept_since_us")
_ALWAYS_US = int(np.iinfo(np.int64).max)
_BROKEN = (OSError, ValueError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Checkpoint:
    """The state of the lists at the start of an interval."""

    file: Path
    start_us: int
    """Start of the interval, microseconds since 1970 UTC."""
    versions: int
    """Number of versions before it."""
    rows: int
    """Number of rows before it, those that later ones replace included."""
    kept_since_us: int
    """Time before which replaced rows may have been dropped from them, microseconds since 1970 UTC; 0 for none."""

    def restore(self, nearest: NearestProducts) -> None:
        """Fill `nearest`, which has no products, with the lists.

        Raises:
            CorruptDataError: the file is damaged.
        """
        try:
            with np.load(self.file, allow_pickle=False) as stored:
                listed, width = stored["neighbours"], nearest.listed.shape[1]
                shape = (len(listed), width - listed.shape[1])  # files once had k columns
                nearest.listed = np.concatenate([listed.astype(np.int64), np.full(shape, -1)], axis=1)
                missing = np.full(shape, np.nan, np.float32)
                nearest.listed_similarity = np.concatenate([stored["similarity"], missing], axis=1)
                nearest.has_history = stored["has_history"]
                nearest.cells_made_for = int(stored["cells_made_for"])
                if "centers" in stored:
                    nearest.cells = VectorCells(stored["centers"], int(stored["probes"]), float(stored["recall"]))
                    nearest.product_cells = stored["product_cells"].astype(np.int32)
        except _BROKEN as error:
            raise CorruptDataError(
                f"{self.file}: the lists of neighbours cannot be read ({error}); remove the file, then the next run "
                "computes them anew"
            ) from error


def find_checkpoint(
    settings: Settings, encoder_version: str, compute_digest: Callable[[int], int]
) -> Checkpoint | None:
    """Return where a run can continue; None if it must begin at the first impression.

    Args:
        settings: the deployment.
        encoder_version: the encoder of the vectors.
        compute_digest: returns the digest of everything before the start of an interval, as it is now.
    """
    digest = delta.txn_marker(settings.table(schema.NEIGHBOURS_TABLE), _name_marker(encoder_version))
    if digest is None:
        return None
    file = _find_folder(settings, encoder_version) / f"{digest:016x}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            checkpoint = Checkpoint(file, *(int(stored[name]) for name in _NUMBERS))
    except _BROKEN:
        return None
    if compute_digest(checkpoint.start_us) != digest:
        return None
    return checkpoint if _has_versions(settings, encoder_version, checkpoint) else None


def find_finished_run(settings: Settings, encoder_version: str, inputs: int) -> tuple[int, int] | None:
    """Return the numbers of intervals and of versions of the last run, if it read the same; None if it did not.

    Args:
        settings: the deployment.
        encoder_version: the encoder of the vectors.
        inputs: the digest of what a run would read now, of neighbour_digest.hash_run.
    """
    table = settings.table(schema.NEIGHBOURS_TABLE)
    if delta.txn_marker(table, f"inputs of {_name_marker(encoder_version)}") != inputs:
        return None
    names = [f"{what} of {_name_marker(encoder_version)}" for what in ("intervals", *_NUMBERS[1:])]
    intervals, *numbers = (delta.txn_marker(table, name) or 0 for name in names)
    all_rows = Checkpoint(_find_folder(settings, encoder_version), _ALWAYS_US, *numbers)
    return (intervals, all_rows.versions) if _has_versions(settings, encoder_version, all_rows) else None


def mark_run(settings: Settings, encoder_version: str, inputs: int, intervals: int, versions: int) -> None:
    """Mark the table with what a run has read, for `find_finished_run`.

    Args:
        settings: the deployment.
        encoder_version: the encoder of the vectors.
        inputs: the digest of what the run has read.
        intervals: number of intervals.
        versions: number of versions; the table has the current rows of all of them.
    """
    rows = _count_rows(settings, encoder_version)
    numbers = {"inputs": inputs, "intervals": intervals, "versions": versions, "rows": rows}
    numbers["kept_since_us"] = _read_kept_since_us(settings)
    _write_markers(settings, {f"{what} of {_name_marker(encoder_version)}": number for what, number in numbers.items()})


def write_checkpoint(
    settings: Settings, encoder_version: str, nearest: NearestProducts, digest: int, start_us: int, versions: int
) -> None:
    """Keep the lists, mark the table, and remove the lists of earlier runs.

    Args:
        settings: the deployment.
        encoder_version: the encoder of the vectors.
        nearest: the lists at the start of an interval.
        digest: of everything before it, from 0 to 2**63 - 1.
        start_us: the start of the interval, microseconds since 1970 UTC.
        versions: number of versions before it; the table has the current rows of all of them.
    """
    folder = _find_folder(settings, encoder_version)
    arrays = {
        "start_us": np.array(start_us),
        "versions": np.array(versions),
        "rows": np.array(_count_rows(settings, encoder_version, start_us)),
        "kept_since_us": np.array(_read_kept_since_us(settings)),
        "neighbours": nearest.listed.astype(np.int32),
        "similarity": nearest.listed_similarity,
        "has_history": nearest.has_history,
        "cells_made_for": np.array(nearest.cells_made_for),
    }
    if nearest.cells is not None and nearest.product_cells is not None:
        small = np.int16 if len(nearest.cells.centers) <= np.iinfo(np.int16).max else np.int32
        arrays |= {
            "centers": nearest.cells.centers,
            "probes": np.array(nearest.cells.probes),
            "recall": np.array(nearest.cells.recall),
            "product_cells": nearest.product_cells.astype(small),
        }
    file = folder / f"{digest:016x}.npz"
    with replace_atomically(file) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes the names for options
    _write_markers(settings, {_name_marker(encoder_version): digest})
    for other in folder.glob("*.npz"):
        if other != file:
            other.unlink()


def remove_checkpoint(settings: Settings, encoder_version: str) -> None:
    """Remove the lists of an encoder version, if there are any; the next run begins at the first impression."""
    shutil.rmtree(_find_folder(settings, encoder_version), ignore_errors=True)


def _has_versions(settings: Settings, encoder_version: str, checkpoint: Checkpoint) -> bool:
    """Return whether the table has all rows of a checkpoint, or lacks some by a vacuum and has its versions."""
    if _count_rows(settings, encoder_version, checkpoint.start_us) >= checkpoint.rows:
        return True
    if _read_kept_since_us(settings) <= checkpoint.kept_since_us:  # no vacuum has dropped them
        return False
    rows = delta.open_dataset(settings.table(schema.NEIGHBOURS_TABLE))
    where = _select_rows(encoder_version, checkpoint.start_us)
    keys = [
        input_digest.combine(
            input_digest.hash_texts(batch[schema.PRODUCT_ID]),
            input_digest.hash_numbers(batch[schema.EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()),
        )
        for batch in take.scan(rows, [schema.PRODUCT_ID, schema.EVENT_TIMESTAMP], where).to_batches()
    ]
    return bool(keys) and len(np.unique(np.concatenate(keys))) >= checkpoint.versions


def _read_kept_since_us(settings: Settings) -> int:
    """Return the time before which a vacuum dropped replaced rows, microseconds since 1970 UTC; 0 for none."""
    table = settings.table(schema.NEIGHBOURS_TABLE)
    kept_since = retention.read_kept_since(table) if delta.exists(table) else None
    return 0 if kept_since is None else datetime_to_ticks(kept_since, "us")


def _count_rows(settings: Settings, encoder_version: str, before_us: int = _ALWAYS_US) -> int:
    """Return how many rows of an encoder version the table has before a time; 0 if there is no table."""
    table = settings.table(schema.NEIGHBOURS_TABLE)
    if not delta.exists(table):
        return 0
    return delta.open_dataset(table).count_rows(filter=_select_rows(encoder_version, before_us))


def _select_rows(encoder_version: str, before_us: int) -> pyarrow.dataset.Expression:
    where = pc.field(schema.ENCODER_VERSION) == encoder_version
    if before_us == _ALWAYS_US:
        return where
    return where & (pc.field(schema.EVENT_TIMESTAMP) < pc.scalar(before_us).cast(schema.TIMESTAMP))


def _write_markers(settings: Settings, markers: dict[str, int]) -> None:
    table, none = settings.table(schema.NEIGHBOURS_TABLE), schema.PRODUCT_NEIGHBOURS.empty_table()
    delta.append_if_version(table, none, SERIES, delta.txn_version(table, SERIES), markers)


def _name_marker(encoder_version: str) -> str:
    return f"{SERIES} of {encoder_version}"


def _find_folder(settings: Settings, encoder_version: str) -> Path:
    return settings.local / FOLDER / name_folder(encoder_version)
