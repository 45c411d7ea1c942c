"""Clicks to align an encoder with: those of a log before the days that a lift will be measured on."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import UsageError, VitrineError
from feature_repo.offline import files, validation
from feature_repo.schema import CLICKED, EVENT_TIMESTAMP, IMPRESSIONS, PRODUCT_ID, TIMESTAMP, USER_ID

COLUMNS = (USER_ID, PRODUCT_ID, EVENT_TIMESTAMP)


def clicks_before(
    impressions: Path, *, until: datetime | None, test_days: float | None, now: datetime
) -> tuple[pa.Table, datetime]:
    """The clicks of a log before a moment, and that moment.

    Args:
        impressions: a file of schema.IMPRESSIONS; rows without user, product or a usable time say nothing and are left
            out: `consume lift` names each of them.
        until: clicks before it are taken, exclusive; it has a time zone.
        test_days: where `until` is not given, this long before the end of the log's last day, as `consume lift
            --test-days` cuts it.
        now: later rows are left out.

    Raises:
        UsageError: neither is given: which days are to be measured cannot be told.
        VitrineError: the file cannot be read, lacks a column, or has no click before the moment.
    """
    if until is None and test_days is None:
        raise UsageError(
            "--align needs --until TIME or --test-days N: an encoder that has seen the clicks a lift is measured on "
            "proves nothing"
        )
    table = files.read(impressions, IMPRESSIONS.names)
    validation.require(table, [*COLUMNS, CLICKED], impressions)
    times, unusable = validation.as_timestamps(table, EVENT_TIMESTAMP, impressions, now)
    columns = [
        validation.as_text(table, USER_ID, impressions),
        validation.as_text(table, PRODUCT_ID, impressions),
        times,
    ]
    log = pa.table([*columns, validation.as_numbers(table, CLICKED, impressions)], names=[*COLUMNS, CLICKED])
    log = log.filter(pa.array(~np.any([check.bad for check in unusable], axis=0)))
    if not len(log):
        raise VitrineError(f"{impressions}: no row has a usable {EVENT_TIMESTAMP}")
    if until is None:
        latest = pc.max(log[EVENT_TIMESTAMP]).as_py()
        midnight = latest.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        until = midnight + timedelta(days=1) - timedelta(days=float(test_days or 0))
    clicks = log.filter((pc.field(CLICKED) == 1) & (pc.field(EVENT_TIMESTAMP) < pa.scalar(until, TIMESTAMP)))
    clicks = clicks.select(COLUMNS).drop_null()
    if not len(clicks):
        raise VitrineError(f"{impressions}: no click before {until:%Y-%m-%d %H:%M} UTC to align with")
    return clicks, until
