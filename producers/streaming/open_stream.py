"""A run, with everything that it needs opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online.open_store import open_configured_table
from feature_repo.schema import CREATED_TIMESTAMP
from producers.behaviour.neighbours import read_state
from producers.codes import codebook
from producers.encoders import load
from producers.encoders.image_loader import open_decoding_pool
from producers.streaming import tagging
from producers.streaming.clicks import InterestUpdater
from producers.streaming.loop import Stream
from producers.streaming.metrics import StreamMetrics
from producers.streaming.product_rows import ProductPipeline, ViewBuilder
from producers.streaming.row_writer import RowWriter
from producers.streaming.source import MessageSource


@dataclass(frozen=True)
class StreamOptions:
    """What a run is told on the command line."""

    encoder: str
    images: Path
    """Where relative paths of pictures start."""
    labels: Path | None = None
    """From which taggers learn; None for no tags."""
    abstain: float = 0.5
    impressions: Path | None = None
    """What products have earned; None for no neighbours."""
    neighbours: int = 20
    """How many of the nearest."""
    batch: int = 64
    every: float = 20.0
    accept_changed: bool = False
    """Whether to go on where the newest vectors are of another encoder."""


@contextmanager
def open_stream(
    settings: Settings,
    source: MessageSource,
    wanted: StreamOptions,
    metrics: StreamMetrics,
    clock: Callable[[], datetime],
) -> Iterator[Stream]:
    """A run that has not begun.

    Raises:
        VitrineError: there is no online store, the encoder, the labels or the codebook cannot be read, or the newest
            vectors are of another encoder.
    """
    online = open_configured_table(settings)
    if online is None:
        raise VitrineError(f"{settings.file}: there is no online store to write to yet; run `feast apply`")
    model = load(wanted.encoder)
    if not wanted.accept_changed:
        _refuse_changed(settings, model.version)
    further: dict[str, ViewBuilder] = {}
    if wanted.labels is not None:
        further[schema.TAGS_TABLE] = tagging.tagger(settings, wanted.labels, model.version, wanted.abstain)
    if wanted.impressions is not None:
        state = read_state(settings, wanted.impressions, model.version, wanted.neighbours, clock())
        further[schema.NEIGHBOURS_TABLE] = lambda vectors, products: state.compute_rows(vectors, clock())
    with open_decoding_pool(1) as pool:
        yield Stream(
            settings,
            source,
            ProductPipeline(
                model, pool, wanted.images.resolve(), codebook.load_newest(settings, model.version), further
            ),
            RowWriter(settings, online),
            InterestUpdater(settings, model.version, model.dim),
            clock=clock,
            batch=wanted.batch,
            every=wanted.every,
            first_feature=metrics.first_feature,
            progress=metrics.committed,
        )


def _refuse_changed(settings: Settings, version: str) -> None:
    """Raise a `VitrineError` if the newest vectors offline are of another encoder."""
    path = settings.table(schema.EMBEDDING_TABLE)
    newest = pc.max(delta.read(path, [CREATED_TIMESTAMP])[CREATED_TIMESTAMP]) if delta.exists(path) else None
    if newest is None or not newest.is_valid:
        return
    before = pc.unique(
        delta.read(path, ["encoder_version"], where=pc.field(CREATED_TIMESTAMP) == newest)[0]
    ).to_pylist()
    if version not in before:
        raise VitrineError(
            f"table `product_embedding`: its newest vectors are of {before[0]}, the stream's would be of {version}; "
            "run `produce embeddings` with this encoder and materialize first, or say --accept-changed to go on: "
            "requests that meet vectors of both are refused"
        )
