"""What Prometheus is told of a stream."""

from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server
from prometheus_client import Counter as Counted

from feature_repo.errors import VitrineError
from producers.streaming.loop import StreamCounts

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)


class StreamMetrics:
    """The metrics of one run.

    Args:
        port: on the loopback; 0 takes any that is free, None serves none.

    Raises:
        VitrineError: the port is taken.
    """

    def __init__(self, port: int | None) -> None:
        self.registry = CollectorRegistry()
        self._first = Histogram(
            "vitrine_stream_time_to_first_feature_seconds",
            "Seconds from a product's arrival in the stream until its features are online.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._messages = Counted("vitrine_stream_messages", "Messages worked on.", registry=self.registry)
        self._rows = Counted("vitrine_stream_rows", "Rows committed.", ["table"], registry=self.registry)
        self._refused = Counted("vitrine_stream_dead_letters", "Messages refused.", registry=self.registry)
        self._last = Gauge("vitrine_stream_last_commit_seconds", "When it last committed.", registry=self.registry)
        self._told = StreamCounts()
        if port is not None:
            try:
                start_http_server(port, "127.0.0.1", self.registry)
            except OSError as error:
                raise VitrineError(
                    f"metrics cannot be served at 127.0.0.1:{port} ({error.strerror}); another stream may be running: "
                    "name another --metrics-port, or -1 for none"
                ) from error

    def first_feature(self, seconds: float) -> None:
        """A product has its features so long after it arrived."""
        self._first.observe(max(0.0, seconds))

    def committed(self, counts: StreamCounts) -> None:
        """What the run has done so far."""
        self._messages.inc(counts.messages - self._told.messages)
        self._refused.inc(counts.refused.total() - self._told.refused.total())
        for table, rows in counts.added.items():
            self._rows.labels(table).inc(rows - self._told.added[table])
        self._told = StreamCounts(messages=counts.messages, added=counts.added.copy(), refused=counts.refused.copy())
        self._last.set_to_current_time()
