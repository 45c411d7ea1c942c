"""Compare recent products with earlier ones, view by view, and say what to do first.

All statistics are computed for the same products and the same labellings, so that one threshold procedure
(threshold.py) holds for all of them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from consumers.monitoring.drift import threshold
from consumers.monitoring.drift.view_statistics import (
    MIN_PRODUCTS,
    VIEWS,
    DirectAlarm,
    Finding,
    Labellings,
    Skipped,
    StatisticValues,
    measure_catalogue,
    measure_view,
)
from consumers.monitoring.drift.windows import ProductWindows
from feature_repo.config import Settings
from feature_repo.durations import format_duration


@dataclass(frozen=True)
class DriftStatistic:
    """One measure of how far recent and earlier products differ, and its threshold.

    Field names are keys of the JSON report.
    """

    view: str
    """Name of the view."""
    subject: str
    """What is compared: a vector, a tag, a level of codes ("level 1"), "category" or "rows"."""
    name: str
    """How it is compared, such as "PSI" or "centroid shift"."""
    value: float
    """The observed value; larger is further apart."""
    expected: float
    """Mean over the permutations of recent and earlier products: the value that chance gives."""
    threshold: float
    """A larger value is an alarm. Infinite if the statistic is the same for every permutation."""

    @property
    def is_alarm(self) -> bool:
        """Whether the value is above the threshold; a value equal to it is no alarm."""
        return self.value > self.threshold


@dataclass(frozen=True)
class Drift:
    """What was compared and found. Field names are keys of the JSON report."""

    now: datetime
    """End of the recent window, with a UTC offset."""
    window_seconds: float
    """Length of the recent window in seconds."""
    before_seconds: float
    """Length of the time before it in seconds."""
    once_in: int
    """One false alarm in this many checks if nothing changes, for all statistics together."""
    products_now: int
    """Number of products of the recent window in the sample."""
    products_before: int
    """Number of products of the time before it in the sample."""
    new_now: float
    """Share of the recent products that are in their first version; NaN if there are none."""
    strata: int
    """Number of groups of products (same category, all new or all not) within which labels were permuted."""
    p_value: float | None
    """Probability, if nothing has changed, of statistics at least this far apart. None if nothing could be compared."""
    statistics: list[DriftStatistic]
    """Those of the catalogue, then of the views in the order of VIEWS; empty if nothing could be compared."""
    changed: list[str]
    """Alarms without a threshold: a feed that shrank, a version that most earlier products have no rows of."""
    not_judged: list[str]
    """What could not be compared, and why, in one line each."""

    @property
    def no_data(self) -> str | None:
        """Why nothing could be compared, the reasons joined by "; "; None if something was."""
        return "; ".join(self.not_judged) if self.p_value is None else None

    @property
    def breaches(self) -> list[str]:
        """One line for each alarm without a threshold, then one for each subject with an alarm: what to do first.

        Subjects are in the order of `statistics`. Empty if there is no alarm.
        """
        lines = list(self.changed)
        for view, subject in dict.fromkeys((statistic.view, statistic.subject) for statistic in self.statistics):
            of_subject = [one for one in self.statistics if (one.view, one.subject) == (view, subject)]
            alarms = [statistic for statistic in of_subject if statistic.is_alarm]
            if alarms:
                lines.append(_describe_alarms(view, subject, alarms))
        return lines


def check(
    settings: Settings,
    *,
    now: datetime,
    window: timedelta,
    before: timedelta,
    checks_per_alarm: int,
    sample: int,
    seed: int,
) -> Drift:
    """Compare the products of (now - window, now] with those of the time `before` that.

    If one side has fewer than MIN_PRODUCTS products, nothing is compared; the result then says so in `no_data`.

    Args:
        settings: the deployment.
        now: end of the recent window, inclusive, with a UTC offset.
        window: length of the recent window.
        before: length of the time before it.
        checks_per_alarm: one false alarm in this many checks if nothing changes, for all statistics together; at least
            1. The time that a check takes grows with it.
        sample: largest number of products on each side, selected by hash of the id; all of them if there are fewer.
        seed: seed of the sample and of the permutations.

    Raises:
        NotFoundError: there is no catalogue, or it lacks a column.
    """
    windows = ProductWindows.read(settings, now, window=window, before=before, sample=sample, seed=seed)
    recent, earlier = int(windows.now.sum()), int((~windows.now).sum())
    is_new = windows.products["new"].to_numpy(bool)[windows.now]
    findings: list[Finding] = [DirectAlarm(line) for line in _check_feed(windows.counts, window)]
    p_value: float | None = None
    statistics: list[DriftStatistic] = []
    if min(recent, earlier) < MIN_PRODUCTS:
        findings.append(
            Skipped(
                f"{recent:,} products in the window and {earlier:,} before it; at least {MIN_PRODUCTS} of each are "
                "needed: use a longer --window or --before"
            )
        )
    else:
        permutations = threshold.count_permutations(checks_per_alarm)
        labels = Labellings(
            threshold.permute_labels(windows.now, windows.stratum, permutations, seed),
            threshold.permute_labels(windows.now, windows.newness, permutations, seed + 1),
        )
        findings += measure_catalogue(windows, labels)
        for view in VIEWS:
            findings += measure_view(view, settings, windows, labels, seed)
        measured = [finding for finding in findings if isinstance(finding, StatisticValues)]
        thresholds = threshold.compute_thresholds(
            np.column_stack([statistic.values for statistic in measured]), checks_per_alarm
        )
        p_value = thresholds.p_value
        statistics = [
            DriftStatistic(one.view, one.subject, one.name, float(one.values[0]), float(expected), float(bound))
            for one, expected, bound in zip(measured, thresholds.expected, thresholds.threshold, strict=True)
        ]
    return Drift(
        now=now,
        window_seconds=window.total_seconds(),
        before_seconds=before.total_seconds(),
        once_in=checks_per_alarm,
        products_now=recent,
        products_before=earlier,
        new_now=float(is_new.mean()) if len(is_new) else float("nan"),
        strata=len(np.unique(windows.stratum)) if len(windows.now) else 0,
        p_value=p_value,
        statistics=statistics,
        changed=[finding.message for finding in findings if isinstance(finding, DirectAlarm)],
        not_judged=[finding.message for finding in findings if isinstance(finding, Skipped)],
    )


MIN_FEED_SHARE = 0.2
"""Share of the usual number of products below which a window is an alarm. Quiet weeks and holidays keep more."""
MIN_EARLIER_WINDOWS = 2
"""Earlier windows needed to say what is usual, which is their median."""


def _check_feed(counts: Sequence[int], window: timedelta) -> list[str]:
    """Return an alarm if far fewer products than usual come in. Too few to compare is only normal if it always was."""
    recent, *earlier = counts
    usual = float(np.median(earlier)) if len(earlier) >= MIN_EARLIER_WINDOWS else 0
    if usual < MIN_PRODUCTS or recent >= MIN_FEED_SHARE * usual:
        return []
    return [
        f"product_catalogue, rows: {recent:,} products in {format_duration(window)}, and {usual:,.0f} are usual; "
        "check that the feed is complete (`produce catalogue` lists the rows that it refused)"
    ]


REPAIRS = {
    "image_vector": "open some of today's images: are they the shop's? (`produce catalogue` lists those it refused)",
    "text_vector": "read some of today's titles: is their encoding right?",
    "fused_vector": "compare image_vector and text_vector: the one that moved says which feed to check",
    "category": "count today's products by category, and check the feed of the one that is missing or new",
    "rows": "run its producer, and look in the quarantine for the rows that it refused",
}
"""What to do first, by subject. Tags and codes are computed from vectors: look at those."""


def _describe_alarms(view: str, subject: str, alarms: Sequence[DriftStatistic]) -> str:
    """Return one line that names the statistic furthest above its threshold, relative to its expected value."""
    worst = max(alarms, key=lambda one: (one.value - one.expected) / max(one.threshold - one.expected, 1e-12))
    others = [one.name for one in alarms if one is not worst]
    also = f" (so are {', '.join(others)})" if others else ""
    repair = REPAIRS.get(subject, "look at the vectors that it is computed from, because it drifts with them")
    return f"{view}, {subject}: {worst.name} {worst.value:.3f} is over {worst.threshold:.3f}{also}; {repair}"
