"""Which products are encoded first: those that were shown most."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.config import Settings
from feature_repo.schema import PRODUCT_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.behaviour.impression_log import read_log
from producers.embeddings.existing_rows import STEP

SERVED_SHARES = (0.5, 0.9, 1.0)
"""Shares of the impressions that the products of each group, with those of the groups before, cover."""


def list_most_served(
    settings: Settings, impressions: Path, now: datetime, table_format: TableFormat = DEFAULT_FORMAT
) -> list[pc.Expression]:
    """Return a filter for each group of products, the most shown first; products without impressions are in none.

    A catalogue is read in its order, so products are encoded group by group and not one by one.

    Args:
        settings: the deployment, whose quarantine gets refused rows.
        impressions: the log.
        now: the current time, with a time zone; later impressions are refused.
        table_format: what the user says about the log.

    Raises:
        NotFoundError: the log does not exist.
        InvalidInputError: the log is unusable.
    """
    log = read_log(settings, impressions, step=STEP, now=now, clicks_only=False, table_format=table_format)
    counts = np.bincount(log.product, minlength=len(log.product_ids))
    order = np.argsort(-counts, kind="stable")
    covered = np.cumsum(counts[order]) / len(log)
    ends = [int(np.searchsorted(covered, share - 1e-12)) + 1 for share in SERVED_SHARES]
    groups = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True) if end > start]
    return [pc.field(PRODUCT_ID).isin(log.product_ids.take(pa.array(group))) for group in groups]
