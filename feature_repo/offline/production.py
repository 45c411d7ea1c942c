"""Which encoder version is in production, and the steps of an upgrade from one version to the next.

The offline tables of `schema.ENCODER_TABLES` hold rows of every encoder version. Readers get those of one: the version
in production. It is recorded in the Delta table `encoder_upgrades`, one row for each step; the last row is the current
state. A step is one commit, and of two writers that start from one state one is refused.

    in production -> staged -> backfilling -> shadow -> gated -> cut over -> retiring -> retired
                        |           |           |         |         |
                        +-----------+-----------+---------+---------+-> rolled back -> retiring -> retired

The record is a table beside the others, so that whoever reads them finds it: Feast's offline store, a GPU machine, a
cluster. A store without the table, as version 0.2 and earlier wrote it, has no version in production: readers then use
the row created last, whatever its version.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from feature_repo import schema
from feature_repo.errors import ConflictError, CorruptDataError
from feature_repo.location import Location
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_VERSION

SERIES = "upgrade"
"""Name under which `delta.append_if_version` counts the steps."""


class State(StrEnum):
    """Where an upgrade is."""

    IN_PRODUCTION = "in production"
    """There is no upgrade: the first version of a store."""
    STAGED = "staged"
    """The candidate is chosen, nothing is written yet."""
    BACKFILLING = "backfilling"
    """Rows of the candidate are written to the offline tables."""
    SHADOW = "shadow"
    """Rows of the candidate are online under keys of their own, which no reader reads."""
    GATED = "gated"
    """The candidate has passed its gates."""
    CUT_OVER = "cut over"
    """The candidate is in production; the former version is kept."""
    ROLLED_BACK = "rolled back"
    """The former version is in production again; the candidate is kept."""
    RETIRING = "retiring"
    """The rows of the version that is not in production are being deleted."""
    RETIRED = "retired"
    """They are deleted."""


@dataclass(frozen=True)
class Upgrade:
    """The state of a store after one step."""

    sequence: int
    """Number of the step, from 1."""
    state: State
    """Where the upgrade is."""
    production_version: str
    """Encoder version that readers get."""
    candidate_version: str | None
    """The other encoder version of the upgrade: the one that is prepared, or was in production before. None without an
    upgrade, and when that version's rows are deleted."""
    options: Mapping[str, Any]
    """The options of `produce upgrade start`; empty without an upgrade."""
    created: datetime
    """When the step was made, with a time zone."""

    @property
    def is_running(self) -> bool:
        """Whether a version besides the one in production is kept."""
        return self.candidate_version is not None


def read_history(folder: Location) -> list[Upgrade]:
    """Return every step of a store, oldest first; empty if none is recorded.

    Args:
        folder: folder of the offline tables.

    Raises:
        CorruptDataError: the table is damaged, or has a row that `record_step` did not write.
    """
    path = folder / schema.UPGRADES_TABLE
    if not delta.exists(path):
        return []
    rows = delta.read(path, schema.UPGRADES.names).sort_by("sequence").to_pylist()
    return [_parse_step(path, row) for row in rows]


def _parse_step(path: Location, row: Mapping[str, Any]) -> Upgrade:
    try:
        options = json.loads(row["options"])
        if not isinstance(options, dict) or not row["production_version"]:
            raise ValueError("expected a version in production, and options as a JSON object")
        versions = row["production_version"], row["candidate_version"]
        return Upgrade(row["sequence"], State(row["state"]), *versions, options, row[CREATED_TIMESTAMP])
    except (ValueError, TypeError) as error:
        raise CorruptDataError(
            f"table `{path.name}` under {path.parent}: step {row['sequence']} is none of `produce upgrade` ({error}); "
            "restore the table from a copy"
        ) from error


def read_current(folder: Location) -> Upgrade | None:
    """Return the current state of a store; None if none is recorded. `folder` has the offline tables."""
    history = read_history(folder)
    return history[-1] if history else None


def read_version(folder: Location, at: datetime | None = None) -> str | None:
    """Return the encoder version in production; None if none is recorded.

    Args:
        folder: folder of the offline tables.
        at: as of this time, exclusive, with a time zone; before the first step it is the first step's version. None:
            now.
    """
    history = read_history(folder)
    earlier = [step for step in history if at is None or step.created < at] or history[:1]
    return earlier[-1].production_version if earlier else None


def record_step(folder: Location, before: Upgrade | None, **changes: Any) -> Upgrade:
    """Record a step: the state before with some changes. Return the new state.

    Args:
        folder: folder of the offline tables.
        before: the state that the step follows; None if none is recorded.
        changes: new values of fields of `Upgrade`; `created` must be among them, and without `before` all but
            `sequence`.

    Raises:
        ConflictError: another process has recorded a step since `before` was read.
        UnavailableError: the commit cannot be written.
    """
    first = Upgrade(0, State.IN_PRODUCTION, "", None, {}, changes["created"])
    after = replace(before or first, sequence=(before or first).sequence + 1, **changes)
    row = {
        "sequence": after.sequence,
        "state": str(after.state),
        "production_version": after.production_version,
        "candidate_version": after.candidate_version,
        "options": json.dumps(dict(after.options)),
        CREATED_TIMESTAMP: after.created,
    }
    try:
        path = folder / schema.UPGRADES_TABLE
        delta.append_if_version(path, pa.Table.from_pylist([row], schema.UPGRADES), SERIES, after.sequence - 1)
    except delta.CommitConflictError as error:
        raise ConflictError("another process has moved the upgrade on; run `produce upgrade status`") from error
    return after


def record_first_version(folder: Location, encoder_version: str, now: datetime) -> str:
    """Record an encoder version as the one in production, if none is recorded. Return the version in production.

    Args:
        folder: folder of the offline tables.
        encoder_version: the version of a store without vectors. If there are vectors, the version of the most products
            is recorded; of several, the one with the row created last.
        now: the time of the step, with a time zone.
    """
    current = read_current(folder)
    if current is None:
        covered = count_products(folder)
        version = max(covered, key=lambda name: covered[name], default=encoder_version)
        try:
            current = record_step(folder, None, production_version=version, created=now)
        except ConflictError:  # another process was first
            current = read_current(folder)
            assert current is not None
    return current.production_version


def count_products(folder: Location) -> dict[str, tuple[int, datetime]]:
    """Return for each encoder version the number of products with vectors and the last created timestamp.

    Args:
        folder: folder of the offline tables; without a table of vectors the result is empty.
    """
    path = folder / schema.EMBEDDING_TABLE
    if not delta.exists(path):
        return {}
    rows = delta.read(path, [ENCODER_VERSION, schema.PRODUCT_ID, CREATED_TIMESTAMP])
    counts = rows.group_by(ENCODER_VERSION).aggregate(
        [(schema.PRODUCT_ID, "count_distinct"), (CREATED_TIMESTAMP, "max")]
    )
    return {
        row[ENCODER_VERSION]: (row[f"{schema.PRODUCT_ID}_count_distinct"], row[f"{CREATED_TIMESTAMP}_max"])
        for row in counts.to_pylist()
    }


def rows_filter(path: Location) -> pyarrow.dataset.Expression | None:
    """Return the filter that keeps the rows of the version in production; None if readers get every row.

    Args:
        path: the table's folder, in the folder of the offline tables.
    """
    version = read_version(path.parent) if path.name in schema.ENCODER_TABLES else None
    return None if version is None else pyarrow.dataset.field(ENCODER_VERSION) == version
