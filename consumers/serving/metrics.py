"""Prometheus metrics of the feature server, beside those of every server (feature_repo/server/metrics.py)."""

from prometheus_client import Counter

from feature_repo.server.metrics import ServerMetrics


class Metrics(ServerMetrics):
    """The metrics of one process of the feature server.

    Beside those of `ServerMetrics`: `candidates` by feature service, `rows` by view and status, `pairs` and their
    `pair_batches`.

    Args:
        shared: as for `ServerMetrics`.
    """

    def __init__(self, shared: str | None = None) -> None:
        super().__init__(shared)
        self.candidates = Counter(
            "vitrine_serving_candidates",
            "Candidates in answered requests, by feature service.",
            ["service"],
            registry=self._own,
        )
        self.rows = Counter(
            "vitrine_serving_rows",
            "Rows in responses by view and status: present, stale, absent, failed.",
            ["view", "status"],
            registry=self._own,
        )
        self.pairs = Counter("vitrine_serving_pairs", "Pairs of products in answered requests.", registry=self._own)
        self.pair_batches = Counter(
            "vitrine_serving_pair_batches",
            "Batches in which pairs of several requests were scored.",
            registry=self._own,
        )
