"""Computes `product_neighbours` from the log: how the most similar products performed before each version's time.

Time advances in intervals (a day by default). At the start of each interval every product gets a version, computed
from impressions strictly before it. A product that arrives or changes within an interval gets a version at its own
event time, computed from the state at the interval's start. So no version uses anything at or after its event
timestamp.

The features of a version whose newest row was made from the same state (neighbour_digest.py) are neither computed nor
written again. A run continues at the last interval of the run before it, whose lists of nearest products are kept
(neighbour_checkpoint.py); if something earlier has changed since, it follows the state from the first impression on. If
nothing at all has changed, it reads the log only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.behaviour import impression_log
from producers.behaviour.cells import VectorCells
from producers.behaviour.impression_log import Int64
from producers.behaviour.nearest import NearestProducts
from producers.behaviour.neighbour_checkpoint import find_checkpoint, find_finished_run, mark_run, write_checkpoint
from producers.behaviour.neighbour_digest import StateHashes, hash_run, set_digests
from producers.behaviour.neighbour_state import STEP, build_rows
from producers.behaviour.neighbour_versions import compute_versions
from producers.behaviour.product_changes import read_changes
from producers.input_digest import Digests
from producers.stored_rows import StoredRows
from producers.tags.embedding_rows import choose_encoder_version

ROWS_PER_COMMIT = 500_000


@dataclass(frozen=True)
class NeighbourSummary:
    """The outcome of one run. A version is one row: the features of one product from one event timestamp on."""

    encoder_version: str
    """The encoder whose vectors were used."""
    intervals: int
    """Intervals from the first impression to the last one. Of those before the first product, at most one counts."""
    added: int
    """Versions written."""
    already_stored: int
    """Versions of this log that were up to date in the table and were not written again."""
    refused: int
    """Rows of the log that were refused. They are in the quarantine, perhaps since an earlier run."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the rows of the log that were kept, one line each."""
    cells: VectorCells | None = None
    """The cells in which the nearest products were searched last; None if all products were compared, or none."""

    def __str__(self) -> str:
        counts = (
            f"{self.added:,} versions added to {schema.NEIGHBOURS_TABLE} over {self.intervals:,} intervals, "
            f"{self.already_stored:,} up to date; vectors of {self.encoder_version}; "
            f"{self.refused:,} rows of the log quarantined"
        )
        lines = [counts, *(f"  {remark}" for remark in self.remarks)]
        if self.cells is not None:
            lines.append(
                f"  nearest products: of the {self.cells.probes:,} nearest of {len(self.cells.centers):,} cells, which "
                f"hold {self.cells.recall:.1%} of them on a sample"
            )
        return "\n".join(lines)


def make_neighbours(
    settings: Settings,
    impressions: Path,
    *,
    encoder_version: str | None,
    interval: timedelta,
    top_k: int,
    recompute: bool = False,
    now: datetime,
    progress: Callable[[int, int], None],
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> NeighbourSummary:
    """Write the versions that are not stored yet, or were made from something else.

    A product gets a version at the start of each interval at which it has a vector, even without impressions, and one
    at the time of each new vector, up to the end of the last interval. A version is up to date if the last created row
    of its product and event timestamp is of this encoder and has its digest: the same `top_k` and own vector, and the
    same counts, vectors, prices and ages of all other products with impressions. So a corrected log replaces the
    versions after the correction. A row without a digest, of version 0.2 or earlier or of a stream, is up to date.
    Stored versions at other times, as of another `interval`, stay. After a kill, the same call writes what is missing.

    Args:
        settings: the deployment.
        impressions: the whole log: Parquet or CSV with the columns of schema.IMPRESSIONS.
        encoder_version: the encoder whose vectors to use; None for the one with the newest vectors.
        interval: the time between two versions of a product, more than 0. Intervals start at whole multiples of it
            since 1970 UTC.
        top_k: how many nearest products a version is computed from, at least 1; fewer if fewer have impressions.
        recompute: write all versions of this log again, those that are up to date too.
        now: the created timestamp, with a time zone; later impressions are refused.
        progress: called with the number of intervals done and the number of all intervals, first with 0 done.
        table_format: what the user says about the log.
        max_lost_share: the largest share of the log's rows that may be refused because of one column.

    Returns:
        The counts of this run.

    Raises:
        NotFoundError: the log does not exist; there are no vectors, or none of `encoder_version`.
        InvalidInputError: the log cannot be read, lacks a column, has no usable row or too many refused ones; or
            `encoder_version` is None and the choice is ambiguous, as in the middle of an upgrade.
        ConflictError: other writers committed to the table first too often. Versions that are written stay.
        UnavailableError: a commit cannot be written.
    """
    version = choose_encoder_version(settings, encoder_version)
    log = impression_log.read_log(
        settings,
        impressions,
        step=STEP,
        now=now,
        clicks_only=False,
        table_format=table_format,
        max_lost_share=max_lost_share,
    )
    refused = sum(log.refused.values())
    interval_us = interval // timedelta(microseconds=1)
    inputs = hash_run(settings, log, interval_us, top_k)
    finished = None if recompute else find_finished_run(settings, version, inputs)
    if finished is not None:
        return NeighbourSummary(version, finished[0], 0, finished[1], refused, log.remarks)
    changes = read_changes(settings, version)
    # Not before the first product: one impression dated 1970 must not make twenty thousand intervals.
    first = min(max(log.timestamp_us[0], changes.timestamp_us[0] - interval_us), log.timestamp_us[-1])
    starts_us = np.arange(int(first) // interval_us, int(log.timestamp_us[-1]) // interval_us + 1) * interval_us
    hashes = StateHashes.create(changes.product_ids, changes.vectors, top_k)

    def compute_digest(start_us: int) -> int:
        return hashes.compute_history(log, changes, starts_us, interval_us, start_us)

    checkpoint = None if recompute else find_checkpoint(settings, version, compute_digest)
    path = settings.table(schema.NEIGHBOURS_TABLE)
    stored = StoredRows.read(
        path,
        changes.product_ids,
        version_column="encoder_version",
        version=version,
        encoder_version=version,
        since_us=None if checkpoint is None else checkpoint.start_us,
    )
    added, already_stored, before_last, pending = 0, 0, 0, list[pa.Table]()
    nearest = NearestProducts.create_empty(top_k)

    def find_outdated(product: Int64, event_us: Int64, digests: Digests) -> NDArray[np.bool_]:
        return recompute | ~stored.is_current(stored.find(product, event_us), digests)

    parts = compute_versions(log, changes, starts_us, interval_us, (nearest, hashes, checkpoint), find_outdated)
    for done, part in enumerate(parts):
        if done == len(starts_us):
            before_last = added + already_stored + sum(len(rows) for rows in pending)
        already_stored += part.already_stored
        if len(part.product):
            rows = build_rows(changes.product_ids, part.product, part.event_us, part.features, version, now)
            pending.append(set_digests(rows, part.digests))
        if pending and (done == len(starts_us) or sum(map(len, pending)) >= ROWS_PER_COMMIT):
            added += sum(map(len, pending))
            delta.append(path, pa.concat_tables(pending))
            pending = []
        progress(done, len(starts_us))
    last_us = int(starts_us[-1])
    if checkpoint is None or checkpoint.start_us != last_us:
        write_checkpoint(settings, version, nearest, compute_digest(last_us), last_us, before_last)
    mark_run(settings, version, inputs, len(starts_us), added + already_stored)
    return NeighbourSummary(version, len(starts_us), added, already_stored, refused, log.remarks, nearest.cells)
