"""How long products that came by a stream waited for their first features, as a histogram.

`produce stream` writes a row for each into the table `product_first_feature`: from the message's arrival until the
product's features were online. Products that came by the batch commands are in event-to-online lag (lags.py).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumers.monitoring.freshness.lags import Spread
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP

BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 300.0)
"""Seconds: a bar has what waited longer than the bound before and no longer than its own; the last has all others."""


@dataclass(frozen=True)
class FirstFeature:
    """The products that arrived in the window."""

    waited: Spread
    bounds: tuple[float, ...]
    counts: list[int]
    """Of each bar: one more than there are bounds."""


def look(settings: Settings, now: datetime, window: timedelta) -> FirstFeature | None:
    """What is known up to `now`; None where no stream has ever written."""
    path = settings.table(schema.FIRST_FEATURE_TABLE)
    if not delta.exists(path):
        return None
    kind = delta.open_dataset(path).schema.field(CREATED_TIMESTAMP).type
    arrived = pc.field(CREATED_TIMESTAMP)
    recent = (arrived > pa.scalar(now - window, kind)) & (arrived <= pa.scalar(now, kind))
    seconds = delta.read(path, ["seconds"], where=recent)["seconds"].to_pandas()
    bars = np.searchsorted(BOUNDS, seconds.to_numpy(), side="left")
    return FirstFeature(Spread.of(seconds), BOUNDS, np.bincount(bars, minlength=len(BOUNDS) + 1).tolist())
