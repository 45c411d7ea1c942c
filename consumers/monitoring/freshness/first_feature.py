"""Time from the arrival of a streamed product to its first online features, as a histogram.

`produce stream` writes one row for each product into the table `product_first_feature`: the time from the message's
arrival until the product's features were online. Products written by the batch commands are covered by the
event-to-online lag (lags.py).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from consumers.monitoring.freshness.lags import DurationQuantiles
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP

BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 300.0)
"""Upper bounds of the histogram's bars in seconds, inclusive. One more bar holds everything above the last bound."""


@dataclass(frozen=True)
class FirstFeature:
    """Waiting times of the products that arrived in the window. The field names are keys of the JSON report.

    A product counts once for each of its versions that arrived.
    """

    waited: DurationQuantiles
    """Seconds from the arrival of a product's message until its features were online."""
    bounds: tuple[float, ...]
    """BOUNDS: upper bounds of the bars in seconds, inclusive, ascending."""
    counts: list[int]
    """Products in each bar, shortest waiting time first. One bar more than there are bounds: the longer times."""


def measure_first_feature(settings: Settings, now: datetime, window: timedelta) -> FirstFeature | None:
    """Return the waiting times of products that arrived in (now - window, now].

    Args:
        settings: the deployment.
        now: end of the window, inclusive, with a UTC offset.
        window: length of the window.

    Returns:
        None if no stream has ever written. If no product arrived in the window, all counts are 0 and the quantiles NaN.
    """
    path = settings.table(schema.FIRST_FEATURE_TABLE)
    if not delta.exists(path):
        return None
    kind = delta.open_dataset(path).schema.field(CREATED_TIMESTAMP).type
    arrived = pc.field(CREATED_TIMESTAMP)
    in_window = (arrived > pa.scalar(now - window, kind)) & (arrived <= pa.scalar(now, kind))
    seconds = delta.read(path, ["seconds"], where=in_window)["seconds"].to_pandas()
    bars = np.searchsorted(BOUNDS, seconds.to_numpy(), side="left")
    counts = np.bincount(bars, minlength=len(BOUNDS) + 1).tolist()
    return FirstFeature(DurationQuantiles.from_seconds(seconds), BOUNDS, counts)
