"""Prometheus metrics of a server's requests and connections.

With several processes each process keeps its figures in a file in one folder, and `/metrics` shows the sums over all
files.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

SHARED_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder. prometheus_client reads it when it is imported. Feast sets it too."""

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class ServerMetrics:
    """The metrics of one server process. `registry` is what `/metrics` shows.

    The other attributes are the metrics: `requests`, `seconds` and `in_work` of requests, open `connections` and those
    `refused` over HTTP, `descriptors` of the process.

    Args:
        shared: the folder of all processes' figures, which SHARED_FOLDER_VARIABLE must name too; `registry` then shows
            the sums over the processes (of `descriptors` the largest). Ended processes count too, except in gauges.
            None for a single process.
    """

    def __init__(self, shared: str | None = None) -> None:
        self.registry = own = CollectorRegistry()
        if shared is not None:
            own = CollectorRegistry()
            MultiProcessCollector(self.registry, shared)  # type: ignore[no-untyped-call]
        self._own = own
        self.requests = Counter(
            "vitrine_serving_requests", "Requests by protocol and outcome.", ["protocol", "code"], registry=own
        )
        self.seconds = Histogram(
            "vitrine_serving_seconds",
            "Seconds from a request's arrival until its response is ready to be sent.",
            ["protocol"],
            buckets=SECONDS,
            registry=own,
        )
        self.in_work = Gauge(
            "vitrine_serving_in_work",
            "Requests in progress or waiting for a worker.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.connections = Gauge(
            "vitrine_serving_connections", "Open HTTP connections.", registry=own, multiprocess_mode="livesum"
        )
        self.refused = Counter(
            "vitrine_serving_connections_refused",
            "HTTP connections closed or kept waiting because of a bound, by reason.",
            ["reason"],
            registry=own,
        )
        self.descriptors = Gauge(
            "vitrine_serving_descriptors_ratio",
            "Share of the file descriptors in use, of the process that uses the largest share.",
            registry=own,
            multiprocess_mode="livemax",
        )
