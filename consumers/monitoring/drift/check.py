"""Whether what comes in now looks like what came in before, view by view, and what to do first.

Every statistic is of the same products, so that one set of labellings serves all of them, and one threshold procedure
(threshold.py) holds for all together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from consumers.monitoring.drift import threshold
from consumers.monitoring.drift.measured import (
    FEWEST,
    VIEWS,
    Changed,
    Finding,
    Labels,
    Measured,
    NotJudged,
    of_catalogue,
    of_view,
)
from consumers.monitoring.drift.windows import Weeks
from feature_repo.config import Settings
from feature_repo.durations import format_duration


@dataclass(frozen=True)
class Statistic:
    """One statistic as it is, beside what chance does."""

    view: str
    subject: str
    name: str
    value: float
    expected: float
    """Its mean if products of now and of before are exchanged."""
    threshold: float
    """Above it is an alarm; infinite where every exchange gives the same."""

    @property
    def alarm(self) -> bool:
        return self.value > self.threshold


@dataclass(frozen=True)
class Drift:
    """What was compared, and what came of it."""

    now: datetime
    window_seconds: float
    before_seconds: float
    once_in: int
    """A false alarm in so many checks of a quiet shop."""
    products_now: int
    products_before: int
    new_now: float
    """Share of the products of now that are in their first version."""
    strata: int
    p_value: float | None
    """None where nothing could be judged."""
    statistics: list[Statistic]
    changed: list[str]
    """A feed that shrank, and versions that most earlier products have no rows of."""
    not_judged: list[str]
    """What could not be judged, and why."""

    @property
    def blind(self) -> str | None:
        """Why nothing at all could be judged; None where something was."""
        return "; ".join(self.not_judged) if self.p_value is None else None

    @property
    def breaches(self) -> list[str]:
        """One line for each subject with an alarm, its most telling statistic named: what to do first."""
        lines = list(self.changed)
        for view, subject in dict.fromkeys((one.view, one.subject) for one in self.statistics):
            fired = [one for one in self.statistics if (one.view, one.subject) == (view, subject) and one.alarm]
            if fired:
                lines.append(_line(view, subject, fired))
        return lines


def check(
    settings: Settings,
    *,
    now: datetime,
    window: timedelta,
    before: timedelta,
    once_in: int,
    sample: int,
    seed: int,
) -> Drift:
    """Compare the products of the window with those of the time before it.

    Args:
        now: with a time zone; the window ends there.
        once_in: a false alarm in so many checks of a shop in which nothing changes, all statistics together.
        sample: products at most of each side.
        seed: of the sample and of the exchanges.

    Raises:
        VitrineError: there is no catalogue.
    """
    weeks = Weeks.read(settings, now, window=window, before=before, sample=sample, seed=seed)
    sizes = int(weeks.now.sum()), int((~weeks.now).sum())
    new = weeks.products["new"].to_numpy(bool)[weeks.now]
    found: list[Finding] = [Changed(line) for line in _shrunk(weeks.counts, window)]
    p_value: float | None = None
    statistics: list[Statistic] = []
    if min(sizes) < FEWEST:
        found.append(
            NotJudged(
                f"{sizes[0]:,} products in the window and {sizes[1]:,} before it; at least {FEWEST} of each are "
                "needed: take a longer --window or --before"
            )
        )
    else:
        draws = threshold.draws_for(once_in)
        labels = Labels(
            threshold.labellings(weeks.now, weeks.stratum, draws, seed),
            threshold.labellings(weeks.now, weeks.newness, draws, seed + 1),
        )
        found += of_catalogue(weeks, labels)
        for view in VIEWS:
            found += of_view(view, settings, weeks, labels, seed)
        measured = [one for one in found if isinstance(one, Measured)]
        judged = threshold.judge(np.column_stack([one.values for one in measured]), once_in)
        p_value = judged.p_value
        statistics = [
            Statistic(one.view, one.subject, one.name, float(one.values[0]), float(expected), float(bound))
            for one, expected, bound in zip(measured, judged.expected, judged.threshold, strict=True)
        ]
    return Drift(
        now=now,
        window_seconds=window.total_seconds(),
        before_seconds=before.total_seconds(),
        once_in=once_in,
        products_now=sizes[0],
        products_before=sizes[1],
        new_now=float(new.mean()) if len(new) else float("nan"),
        strata=len(np.unique(weeks.stratum)) if len(weeks.now) else 0,
        p_value=p_value,
        statistics=statistics,
        changed=[one.line for one in found if isinstance(one, Changed)],
        not_judged=[one.line for one in found if isinstance(one, NotJudged)],
    )


SHRUNK = 0.2
"""Share of the products that are usual below which a window is an alarm: quiet weeks, holidays too, keep more."""
EARLIER = 2
"""Windows of which the middle one is what is usual, at least."""


def _shrunk(counts: Sequence[int], window: timedelta) -> list[str]:
    """Whether almost nothing comes in any more: too little to judge is calm only where it always was so little."""
    now, *earlier = counts
    usual = float(np.median(earlier)) if len(earlier) >= EARLIER else 0
    if usual < FEWEST or now >= SHRUNK * usual:
        return []
    return [
        f"product_catalogue, rows: {now:,} products in {format_duration(window)}, and {usual:,.0f} are usual; "
        "see that the feed comes in whole (`produce catalogue` names what it refused)"
    ]


FIRST = {
    "image_vector": "open some of today's pictures: are they the shop's? (`produce catalogue` names those it refused)",
    "text_vector": "read some of today's titles: is their encoding right?",
    "fused_vector": "compare image_vector and text_vector: the one that moved says which feed to look at",
    "category": "count today's products by category, and look at the feed of the one that is missing or new",
    "rows": "run its producer, and look at the quarantine for what it refused",
}
"""What to do first, by subject; of tags and codes: look at the vectors that they are made from."""


def _line(view: str, subject: str, fired: Sequence[Statistic]) -> str:
    worst = max(fired, key=lambda one: (one.value - one.expected) / max(one.threshold - one.expected, 1e-12))
    others = [one.name for one in fired if one is not worst]
    also = f" (so are {', '.join(others)})" if others else ""
    first = FIRST.get(subject, "look at the vectors that it is made from: it drifts with them")
    return f"{view}, {subject}: {worst.name} {worst.value:.3f} is over {worst.threshold:.3f}{also}; {first}"
