"""Reads a log and joins it with a feature service; what cannot be used or joined goes to the quarantine."""

import logging
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from consumers.ranking.training_set import RankingTrainingSet, join_views
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import quarantine
from feature_repo.offline.impressions import load_impressions
from feature_repo.schema import IMPRESSION_ID, PRODUCT_ID
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

logger = logging.getLogger(__name__)

STEP = "lift"
"""Name of the step under which rows go to the quarantine."""
UNMATCHED = "no feature view had anything for its product at that time; row kept"
"""Reason of such rows in the quarantine."""


def read_and_join(
    settings: Settings,
    impressions: Path,
    service: str,
    now: datetime,
    *,
    created_before: datetime | None = None,
    encoder_version: str | None = None,
    table_format: TableFormat = DEFAULT_FORMAT,
    max_lost_share: float = 1.0,
) -> tuple[RankingTrainingSet, dict[str, int]]:
    """Read a log and join it with a feature service.

    Refused rows, context values that were dropped, and kept rows whose product is in no view at their time go to
    the quarantine with their reason.

    Args:
        settings: the deployment.
        impressions: file with the columns of `schema.IMPRESSIONS` and any context columns.
        service: name of the Feast feature service.
        now: time of the reading, with a time zone; later impressions are refused.
        created_before: only feature rows that were created before this time are joined; None joins all.
        encoder_version: the encoder version whose rows are joined; None joins those of the one in production.
        table_format: what the user says about the log.
        max_lost_share: the largest share of the rows that may be refused because of one column.

    Returns:
        The joined log, sorted by time, and the numbers of `unmatched` rows (in no view, but kept) and `refused` rows.
        Of usable rows with the same impression id and product, the first is kept and the others are refused.

    Raises:
        NotFoundError: there is no such file or no such feature service.
        InvalidInputError: the file cannot be read, lacks a column, or has no usable row or too many refused ones.
        EncoderMismatchError: the joined views hold vectors of several encoder versions.
    """
    log = load_impressions(
        settings, impressions, step=STEP, now=now, table_format=table_format, max_lost_share=max_lost_share
    )
    for remark in log.remarks:
        logger.warning("%s: %s", impressions, remark)
    data = join_views(settings, service, log.table, created_before, encoder_version)
    unmatched = _list_unmatched(data)
    quarantine.add(settings, STEP, unmatched, now)
    return data, {"unmatched": len(unmatched), "refused": len(log.refused)}


def _list_unmatched(data: RankingTrainingSet) -> list[quarantine.RejectedRow]:
    """The impressions whose product is in no view at their time. They are kept, with every feature missing."""
    absent = [view.row_index < 0 for name, view in data.views.items() if name != schema.INTEREST_TABLE]
    shown = data.impressions.filter(pa.array(np.all(absent, axis=0))).select([IMPRESSION_ID, PRODUCT_ID])
    return [
        quarantine.RejectedRow(row[IMPRESSION_ID], PRODUCT_ID, UNMATCHED, row[PRODUCT_ID]) for row in shown.to_pylist()
    ]
