"""What Prometheus is told of requests.

Several processes (processes.py) each keep their figures in a file of one folder, and whichever is asked shows the sums
over all.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable in which prometheus_client wants the folder named when it is imported. Feast sets it too."""

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics of one server, in a registry of its own: `registry` is what is shown.

    Args:
        shared: the folder of all processes, where there are several.
    """

    def __init__(self, shared: str | None = None) -> None:
        self.registry = own = CollectorRegistry()
        if shared is not None:
            own = CollectorRegistry()
            MultiProcessCollector(self.registry, shared)  # type: ignore[no-untyped-call]
        self.requests = Counter(
            "vitrine_serving_requests", "Requests by how they ended.", ["protocol", "code"], registry=own
        )
        self.seconds = Histogram(
            "vitrine_serving_seconds",
            "Seconds from a request's arrival to its answer, which is then sent.",
            ["protocol"],
            buckets=SECONDS,
            registry=own,
        )
        self.candidates = Counter(
            "vitrine_serving_candidates",
            "Candidates whose features were answered.",
            ["service"],
            registry=own,
        )
        self.rows = Counter(
            "vitrine_serving_rows",
            "Rows answered by view and status: present, stale, absent, failed.",
            ["view", "status"],
            registry=own,
        )
        self.in_work = Gauge(
            "vitrine_serving_in_work",
            "Requests being answered or waiting.",
            registry=own,
            multiprocess_mode="livesum",
        )
