"""Prometheus metrics of the studio, beside those of every server (feature_repo/server/metrics.py)."""

from prometheus_client import Counter, Gauge, Histogram

from feature_repo.server.metrics import ServerMetrics

PICTURE_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class StudioMetrics(ServerMetrics):
    """The metrics of a studio.

    Beside those of `ServerMetrics`: written `captions` and their `caption_batches`, saved `edits`, generated `pictures`
    and their `picture_seconds`, `picture_jobs` by outcome, and `waiting_jobs`.
    """

    def __init__(self) -> None:
        super().__init__()
        own = self.registry
        self.captions = Counter("vitrine_studio_captions", "Lines in answered requests for captions.", registry=own)
        self.caption_batches = Counter(
            "vitrine_studio_caption_batches", "Batches in which requests for captions were answered.", registry=own
        )
        self.edits = Counter("vitrine_studio_edits", "Edited captions that were saved.", registry=own)
        self.pictures = Counter("vitrine_studio_pictures", "Pictures that were generated.", registry=own)
        self.picture_seconds = Histogram(
            "vitrine_studio_picture_seconds",
            "Seconds that the generation of a picture took.",
            buckets=PICTURE_SECONDS,
            registry=own,
        )
        self.picture_jobs = Counter(
            "vitrine_studio_picture_jobs",
            "Ended jobs of generating pictures, by state: done, failed, cancelled, interrupted.",
            ["state"],
            registry=own,
        )
        self.waiting_jobs = Gauge("vitrine_studio_waiting_jobs", "Jobs of generating pictures that wait.", registry=own)
