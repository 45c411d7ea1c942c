"""Results of the checks as Prometheus metrics: a collector for the registry that `/metrics` shows.

The values are those of the last successful run of each check. vitrine_check_refreshed_timestamp_seconds has the time of
that run, and vitrine_check_failed says whether a later run failed. An undefined value has no sample; it is never 0.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from consumers.monitoring.watcher import CheckState, ReadStates

Figures = Mapping[str, Any]
"""A check's JSON report."""
VIEW = ("view",)
SLICE = ("view", "slice")


class CheckCollector:
    """Collector for `CollectorRegistry.register`. It computes nothing; the checks run elsewhere.

    Args:
        read_states: `Watcher.states`. It is called once at each collection.
    """

    def __init__(self, read_states: ReadStates) -> None:
        self._read_states = read_states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield every metric, with the results of the last successful runs.

        Metrics without a value, such as those of a check that has not run, are yielded without samples.
        """
        states = self._read_states()
        figures = {state.check.name: state.figures or {} for state in states}
        yield from _check_metrics(states)
        yield from _freshness_metrics(figures.get("freshness", {}))
        yield from _consistency_metrics(figures.get("consistency", {}))
        yield from _drift_metrics(figures.get("drift", {}))

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Yield the same metrics as `collect`. The registry calls it once, to learn their names."""
        return self.collect()


def _check_metrics(states: list[CheckState]) -> Iterator[GaugeMetricFamily]:
    labels = ("check",)
    yield _gauge(
        "vitrine_check_refreshed_timestamp_seconds",
        "Time of a check's last successful run.",
        labels,
        [((state.check.name,), state.refreshed.timestamp() if state.refreshed else None) for state in states],
    )
    yield _gauge(
        "vitrine_check_failed",
        "1 if a check's last run failed, else 0.",
        labels,
        [((state.check.name,), float(state.failure is not None)) for state in states],
    )
    yield _gauge(
        "vitrine_check_seconds",
        "Duration of a check's last successful run.",
        labels,
        [((state.check.name,), state.seconds) for state in states],
    )
    yield _gauge(
        "vitrine_check_breaches",
        "Alarms of a check's last successful run.",
        labels,
        [((state.check.name,), float(len(state.breaches)) if state.figures else None) for state in states],
    )


def _freshness_metrics(figures: Figures) -> Iterator[GaugeMetricFamily]:
    views = figures.get("views", {}).get("views", [])
    slices, runs = figures.get("slices", []), figures.get("view_runs", [])
    yield _gauge(
        "vitrine_view_newest_event_age_seconds",
        "Age of a view's newest event.",
        VIEW,
        [((one["view"],), one["lag_seconds"]) for one in views],
    )
    yield _gauge(
        "vitrine_view_late",
        "1 if a view is older than allowed, else 0.",
        VIEW,
        [((one["view"],), float(one["breach"] is not None)) for one in views],
    )
    for name, text in (
        ("produced", "End of the last successful run of a view's producer."),
        ("materialized", "End of a view's last materialization."),
        ("watermark", "Event time up to which all rows of a view are online."),
    ):
        yield _gauge(
            f"vitrine_view_{name}_timestamp_seconds",
            text,
            VIEW,
            [((one["view"],), _to_seconds(one[name])) for one in runs],
        )
    for name, text in (
        (
            "lag",
            "Event-to-online lag of events in the window; the time passed so far if not online yet.",
        ),
        ("age", "Age of the products' newest rows."),
        ("served_age", "Age of served features, for impressions in the window."),
    ):
        yield _gauge(
            f"vitrine_slice_{name}_seconds",
            text,
            (*SLICE, "percentile"),
            [
                ((one["view"], one["slice"], quantile[1:]), one[name][quantile])
                for one in slices
                for quantile in ("p50", "p95", "p99")
            ],
        )
    for name, text, numerator, denominator in (
        ("coverage", "Share of active products with a row.", "covered", "active"),
        ("online", "Share of active products with a row online.", "online", "active"),
        ("served_coverage", "Share of impressions whose product had a row at that time.", "served", "impressions"),
    ):
        yield _gauge(
            f"vitrine_slice_{name}_ratio",
            text,
            SLICE,
            [
                ((one["view"], one["slice"]), one[numerator] / one[denominator] if one[denominator] else None)
                for one in slices
            ],
        )
    yield _gauge(
        "vitrine_slice_waiting",
        "Events in the window that are not online yet.",
        SLICE,
        [((one["view"], one["slice"]), float(one["waiting"])) for one in slices],
    )
    yield _gauge(
        "vitrine_quarantined_rows",
        "Rows refused, or repaired and accepted, in the window.",
        ("step", "reason"),
        [((one["step"], one["reason"]), float(one["rows"])) for one in figures.get("quarantined", [])],
    )
    yield _gauge(
        "vitrine_objectives_missed",
        "Freshness objectives that are not met.",
        (),
        [((), float(len(figures["missed"])))] if figures else [],
    )


def _consistency_metrics(figures: Figures) -> Iterator[GaugeMetricFamily]:
    views = [one for one in figures.get("views", []) if one["not_judged"] is None]
    yield _gauge(
        "vitrine_consistency_sampled_keys", "Keys compared.", VIEW, [((one["view"],), one["sampled"]) for one in views]
    )
    yield _gauge(
        "vitrine_consistency_fault_keys",
        "Keys whose online row differs from the offline store, by fault.",
        ("view", "fault"),
        [((one["view"], fault), float(keys)) for one in views for fault, keys in one["faults"].items()],
    )
    yield _gauge(
        "vitrine_consistency_budget_ratio", "Share of the keys that may be faulty.", (), [((), figures.get("budget"))]
    )


def _drift_metrics(figures: Figures) -> Iterator[GaugeMetricFamily]:
    statistics = figures.get("statistics", [])
    labels = ("view", "subject", "statistic")
    for name, text, key in (
        ("statistic", "How far recent products differ from earlier ones.", "value"),
        ("threshold", "A statistic above this value is an alarm.", "threshold"),
    ):
        yield _gauge(
            f"vitrine_drift_{name}",
            text,
            labels,
            [((one["view"], one["subject"], one["name"]), one[key]) for one in statistics],
        )
    has_result = bool(figures) and (figures["p_value"] is not None or bool(figures["breaches"]))
    yield _gauge(
        "vitrine_drift_alarms",
        "Drift alarms. No sample if nothing could be compared.",
        (),
        [((), float(len(figures["breaches"])))] if has_result else [],
    )
    yield _gauge(
        "vitrine_drift_products",
        "Products compared.",
        ("side",),
        [((side,), figures.get(f"products_{side}")) for side in ("now", "before")],
    )


def _gauge(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], float | None]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _to_seconds(timestamp: str | None) -> float | None:
    return None if timestamp is None else datetime.fromisoformat(timestamp).timestamp()
