"""Prometheus metrics of a stream."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from feature_repo.errors import UnavailableError
from producers.streaming.loop import StreamCounts

BUCKETS_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""Upper bounds of the histogram of seconds until the features of a product are online."""


class StreamMetrics:
    """The metrics of one run, in a registry of their own, `registry`."""

    def __init__(self, port: int | None) -> None:
        """Create the metrics, and serve them until the process ends.

        Args:
            port: port on 127.0.0.1; 0 for any free port, None to serve no metrics.

        Raises:
            UnavailableError: the port cannot be opened, for example because it is in use.
        """
        self.registry = CollectorRegistry()
        self._first_feature_seconds = Histogram(
            "vitrine_stream_time_to_first_feature_seconds",
            "Seconds from a product's arrival in the stream until its features are online.",
            buckets=BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._messages = Counter("vitrine_stream_messages", "Messages processed.", registry=self.registry)
        self._rows = Counter("vitrine_stream_rows", "Rows committed.", ["table"], registry=self.registry)
        self._dead_letters = Counter("vitrine_stream_dead_letters", "Messages rejected.", registry=self.registry)
        self._last_commit = Gauge(
            "vitrine_stream_last_commit_seconds", "Unix time of the last commit.", registry=self.registry
        )
        self._reported = StreamCounts()
        if port is not None:
            try:
                start_http_server(port, "127.0.0.1", self.registry)
            except OSError as error:
                raise UnavailableError(
                    f"metrics cannot be served at 127.0.0.1:{port} ({error.strerror}); if another stream is running, "
                    "choose another --metrics-port, or -1 for no metrics"
                ) from error

    def observe_first_feature(self, seconds: float) -> None:
        """Record how long a product waited from its arrival until its features were online.

        Args:
            seconds: the time; a negative one, from clocks that differ, counts as 0.
        """
        self._first_feature_seconds.observe(max(0.0, seconds))

    def observe_commit(self, counts: StreamCounts) -> None:
        """Record that a commit was made now, and what has changed since the last recorded commit.

        Args:
            counts: the totals of the run so far; not smaller than at the last call. They are copied.
        """
        self._messages.inc(counts.messages - self._reported.messages)
        self._dead_letters.inc(counts.dead_letters.total() - self._reported.dead_letters.total())
        for table, rows in counts.added.items():
            self._rows.labels(table).inc(rows - self._reported.added[table])
        self._reported = StreamCounts(
            messages=counts.messages, added=counts.added.copy(), dead_letters=counts.dead_letters.copy()
        )
        self._last_commit.set_to_current_time()
