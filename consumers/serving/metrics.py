"""What Prometheus is told of requests."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vitrine_serving_requests", "Requests by how they ended.", ["protocol", "code"], registry=self.registry
        )
        self.seconds = Histogram(
            "vitrine_serving_seconds",
            "Seconds from a request's arrival to its answer, which is then sent.",
            ["protocol"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.candidates = Counter(
            "vitrine_serving_candidates",
            "Candidates whose features were answered.",
            ["service"],
            registry=self.registry,
        )
        self.rows = Counter(
            "vitrine_serving_rows",
            "Rows answered by view and status: present, stale, absent, failed.",
            ["view", "status"],
            registry=self.registry,
        )
        self.in_work = Gauge("vitrine_serving_in_work", "Requests being answered or waiting.", registry=self.registry)
