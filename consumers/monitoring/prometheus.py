"""What the checks found, as Prometheus reads it: a collector for the registry that `/metrics` shows.

Figures are those of the last time that a check ended well; vitrine_check_refreshed_timestamp_seconds says when that
was, and vitrine_check_failed whether it has failed since. What is undefined is left out, never 0.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from consumers.monitoring.watcher import State, States

Figures = Mapping[str, Any]
VIEW = ("view",)
SLICE = ("view", "slice")


class Collector:
    """Registered with `CollectorRegistry.register`.

    Args:
        states: `Watcher.states`.
    """

    def __init__(self, states: States) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every metric, whatever is known: one without a sample still says that it exists."""
        states = self._states()
        found = {state.check.name: state.figures or {} for state in states}
        yield from _of_checks(states)
        yield from _of_freshness(found.get("freshness", {}))
        yield from _of_consistency(found.get("consistency", {}))
        yield from _of_drift(found.get("drift", {}))

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The same: registering must not run into checks that have found nothing yet."""
        return self.collect()


def _of_checks(states: list[State]) -> Iterator[GaugeMetricFamily]:
    labels = ("check",)
    yield _gauge(
        "vitrine_check_refreshed_timestamp_seconds",
        "When a check last ended well.",
        labels,
        [((state.check.name,), state.refreshed.timestamp() if state.refreshed else None) for state in states],
    )
    yield _gauge(
        "vitrine_check_failed",
        "Whether the last try of a check gave no figures.",
        labels,
        [((state.check.name,), float(state.failure is not None)) for state in states],
    )
    yield _gauge(
        "vitrine_check_seconds",
        "How long a check took.",
        labels,
        [((state.check.name,), state.seconds) for state in states],
    )
    yield _gauge(
        "vitrine_check_breaches",
        "Lines that a check warns with.",
        labels,
        [((state.check.name,), float(len(state.breaches)) if state.figures else None) for state in states],
    )


def _of_freshness(found: Figures) -> Iterator[GaugeMetricFamily]:
    views = found.get("views", {}).get("views", [])
    slices, runs = found.get("slices", []), found.get("view_runs", [])
    yield _gauge(
        "vitrine_view_newest_event_age_seconds",
        "Age of a view's newest event.",
        VIEW,
        [((one["view"],), one["lag_seconds"]) for one in views],
    )
    yield _gauge(
        "vitrine_view_late",
        "Whether a view is later than it may be.",
        VIEW,
        [((one["view"],), float(one["breach"] is not None)) for one in views],
    )
    for name, text in (
        ("produced", "When a view's producer last ended well."),
        ("materialized", "When a view's materialization last ended."),
        ("watermark", "Event time up to which a view is online."),
    ):
        yield _gauge(
            f"vitrine_view_{name}_timestamp_seconds",
            text,
            VIEW,
            [((one["view"],), _seconds(one[name])) for one in runs],
        )
    for name, text in (
        ("lag", "Event-to-online lag, of events in the window; what is not online yet counts so far."),
        ("age", "From a product's newest row to now."),
        ("served_age", "Age of what was served, of impressions in the window."),
    ):
        yield _gauge(
            f"vitrine_slice_{name}_seconds",
            text,
            (*SLICE, "percentile"),
            [
                ((one["view"], one["slice"], place[1:]), one[name][place])
                for one in slices
                for place in ("p50", "p95", "p99")
            ],
        )
    for name, text, above, below in (
        ("coverage", "Share of active products with a row.", "covered", "active"),
        ("online", "Share of active products with a row online.", "online", "active"),
        ("served_coverage", "Share of impressions whose product had a row by then.", "served", "impressions"),
    ):
        yield _gauge(
            f"vitrine_slice_{name}_ratio",
            text,
            SLICE,
            [((one["view"], one["slice"]), one[above] / one[below] if one[below] else None) for one in slices],
        )
    yield _gauge(
        "vitrine_slice_waiting",
        "Events in the window that are not online yet.",
        SLICE,
        [((one["view"], one["slice"]), float(one["waiting"])) for one in slices],
    )
    yield _gauge(
        "vitrine_quarantined_rows",
        "Rows refused, or repaired and kept, in the window.",
        ("step", "reason"),
        [((one["step"], one["reason"]), float(one["rows"])) for one in found.get("quarantined", [])],
    )
    yield _gauge(
        "vitrine_objectives_missed",
        "Objectives of freshness that are not met.",
        (),
        [((), float(len(found["missed"])))] if found else [],
    )


def _of_consistency(found: Figures) -> Iterator[GaugeMetricFamily]:
    views = [one for one in found.get("views", []) if one["not_judged"] is None]
    yield _gauge(
        "vitrine_consistency_sampled_keys", "Keys compared.", VIEW, [((one["view"],), one["sampled"]) for one in views]
    )
    yield _gauge(
        "vitrine_consistency_fault_keys",
        "Keys whose row online is not as offline.",
        ("view", "fault"),
        [((one["view"], fault), float(keys)) for one in views for fault, keys in one["faults"].items()],
    )
    yield _gauge(
        "vitrine_consistency_budget_ratio", "Share of the keys that may be at fault.", (), [((), found.get("budget"))]
    )


def _of_drift(found: Figures) -> Iterator[GaugeMetricFamily]:
    statistics = found.get("statistics", [])
    labels = ("view", "subject", "statistic")
    for name, text, key in (
        ("statistic", "How far products of now are from those of before.", "value"),
        ("threshold", "Above it a statistic is an alarm.", "threshold"),
    ):
        yield _gauge(
            f"vitrine_drift_{name}",
            text,
            labels,
            [((one["view"], one["subject"], one["name"]), one[key]) for one in statistics],
        )
    yield _gauge(
        "vitrine_drift_alarms",
        "Subjects with a drift alarm; none where nothing could be judged.",
        (),
        [((), float(len(found["breaches"])))] if found and (found["p_value"] is not None or found["breaches"]) else [],
    )
    yield _gauge(
        "vitrine_drift_products",
        "Products compared.",
        ("side",),
        [((side,), found.get(f"products_{side}")) for side in ("now", "before")],
    )


def _gauge(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], float | None]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _seconds(moment: str | None) -> float | None:
    return None if moment is None else datetime.fromisoformat(moment).timestamp()
