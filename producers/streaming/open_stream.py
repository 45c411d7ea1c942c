"""Opens everything that a stream needs: online store, encoder, codebook, taggers and neighbours."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import EncoderMismatchError, NotFoundError
from feature_repo.offline import delta, production
from feature_repo.online.open_store import open_configured_table
from feature_repo.online.table import OnlineTable
from feature_repo.schema import CREATED_TIMESTAMP
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.behaviour.neighbour_state import read_state
from producers.catalogue.decimal_mark import DecimalMark
from producers.codes import codebook
from producers.encoders import Encoder, load
from producers.encoders.image_loader import open_decoding_pool
from producers.streaming.clicks import InterestUpdater
from producers.streaming.loop import Stream
from producers.streaming.metrics import StreamMetrics
from producers.streaming.product_rows import ProductPipeline, ViewBuilder
from producers.streaming.row_writer import RowWriter
from producers.streaming.source import MessageSource
from producers.streaming.streamed_versions import StreamedVersion, StreamedVersions
from producers.tags import embedding_rows
from producers.tags.tagger_set import fit_taggers


@dataclass(frozen=True)
class StreamOptions:
    """The options of a run of the stream."""

    encoder: str
    """Checkpoint of the encoder: directory or hub name."""
    image_folder: Path
    """Folder where relative image paths of messages start."""
    labels: Path | None = None
    """Label file of the taggers; None for no tags."""
    abstain: float = 0.5
    """A label that is less probable than this is stored as null, in [0, 1]. Not used without `labels`."""
    impressions: Path | None = None
    """Impression log for the click rates of neighbours; None for no neighbours."""
    top_k: int = 20
    """Number of nearest products from which the features of a product are computed, at least 1. Not used without
    `impressions`."""
    batch_size: int = 64
    """Most messages of each kind (products, clicks) in one read."""
    commit_seconds: float = 20.0
    """Seconds from one commit to the offline tables to the next; it is earlier if `loop.MAX_UNCOMMITTED_ROWS` wait."""
    table_format: TableFormat = DEFAULT_FORMAT
    """What the user says about `labels` and `impressions`."""
    decimal: DecimalMark = DecimalMark.POINT
    """The decimal mark of prices."""
    accept_changed: bool = False
    """Whether to run although the newest offline vectors are of another encoder version. Until all vectors are of the
    new one, requests that meet both are refused."""


@contextmanager
def open_stream(
    settings: Settings,
    source: MessageSource,
    options: StreamOptions,
    metrics: StreamMetrics,
    clock: Callable[[], datetime],
    *,
    clock_delay: timedelta = timedelta(0),
) -> Iterator[Stream]:
    """Open a run; the end of the `with` block stops the image decoding. `Stream.run` starts the run.

    Taggers are fitted and the log is read before the block begins. Products get codes if there is a codebook of the
    encoder version. During an upgrade both versions are opened.

    Args:
        settings: the deployment.
        source: where the messages come from.
        options: encoder, inputs and limits.
        metrics: where the run reports to.
        clock: returns the current time, with a time zone.
        clock_delay: how far the clocks are behind the newest row; it is added to the arrival time of each message.
            `clock` adds it already.

    Yields:
        The run, not started.

    Raises:
        NotFoundError: there is no online store yet.
        EncoderMismatchError: the encoder is neither the one in production nor the candidate of an upgrade. If none is
            recorded, the newest offline vectors are of another one, and `accept_changed` is False.
        VitrineError: the encoder, the labels, the log or the codebook cannot be read.
    """
    online = open_configured_table(settings)
    if online is None:
        raise NotFoundError(f"{settings.file}: there is no online store to write to yet; run `feast apply`")
    encoder = load(options.encoder)
    _check_encoder(settings, encoder.version, options.accept_changed)
    with open_decoding_pool(1) as pool:

        def open_version(encoder: Encoder, is_complete: bool) -> StreamedVersion:
            return _open_version(settings, options, encoder, pool, clock, is_complete=is_complete)

        yield Stream(
            settings,
            source,
            StreamedVersions(settings, encoder, open_version),
            RowWriter(settings, online, lambda: _fill_catalog(settings, online)),
            clock=clock,
            batch_size=options.batch_size,
            commit_seconds=options.commit_seconds,
            on_first_feature=metrics.observe_first_feature,
            on_commit=metrics.observe_commit,
            clock_delay=clock_delay,
        )


def _open_version(
    settings: Settings,
    options: StreamOptions,
    encoder: Encoder,
    pool: ProcessPoolExecutor,
    clock: Callable[[], datetime],
    *,
    is_complete: bool,
) -> StreamedVersion:
    """Return what turns messages into rows of an encoder; into vectors only, unless `is_complete`."""
    folder = options.image_folder.resolve()
    if not is_complete:
        return StreamedVersion(
            ProductPipeline(encoder, pool, folder, None, {}, options.decimal, settings.pictures), None
        )
    view_builders: dict[str, ViewBuilder] = {}
    if options.labels is not None:
        view_builders[schema.TAGS_TABLE] = _open_tagger(settings, options, encoder.version)
    if options.impressions is not None:
        state = read_state(settings, options.impressions, encoder.version, options.top_k, clock(), options.table_format)
        view_builders[schema.NEIGHBOURS_TABLE] = lambda vectors, products: state.compute_rows(vectors, clock())
    book = codebook.load_newest(settings, encoder.version)
    pipeline = ProductPipeline(encoder, pool, folder, book, view_builders, options.decimal, settings.pictures)
    return StreamedVersion(pipeline, InterestUpdater(settings, encoder.version, encoder.dim))


def _fill_catalog(settings: Settings, online: OnlineTable) -> None:
    """Register the deployment's views and services, as Feast's registry has them, in the online store."""
    from feature_repo.stores.feature_store import open_feature_store
    from feature_repo.stores.online.views import publish_catalog

    store = open_feature_store(settings)
    publish_catalog(online.catalog, store.config, store.registry)


def _check_encoder(settings: Settings, encoder_version: str, accept_changed: bool) -> None:
    """Raise `EncoderMismatchError` if readers would not get the rows of this encoder, or would mix them with others."""
    upgrade = production.read_current(settings.offline)
    if upgrade is not None:
        if encoder_version not in (upgrade.production_version, upgrade.candidate_version):
            raise EncoderMismatchError(
                f"encoder {upgrade.production_version} is in production, the stream's is {encoder_version}; prepare it "
                "with `produce upgrade start` and `produce upgrade advance`"
            )
        return
    if accept_changed:
        return
    path = settings.table(schema.EMBEDDING_TABLE)
    newest = pc.max(delta.read(path, [CREATED_TIMESTAMP])[CREATED_TIMESTAMP]) if delta.exists(path) else None
    if newest is None or not newest.is_valid:
        return
    rows = delta.read(path, ["encoder_version"], where=pc.field(CREATED_TIMESTAMP) == newest)
    versions = pc.unique(rows[0]).to_pylist()
    if encoder_version not in versions:
        raise EncoderMismatchError(
            f"table `product_embedding`: its newest vectors are of {versions[0]}, the stream's would be of "
            f"{encoder_version}; run `produce embeddings` with this encoder and materialize first, or pass "
            "--accept-changed: requests that meet vectors of both are refused"
        )


def _open_tagger(settings: Settings, options: StreamOptions, encoder_version: str) -> ViewBuilder:
    """Return the builder of `product_tags`, with taggers fitted now on the same labels as `produce tags`.

    The taggers and their version are the same as those of `produce tags`, because both learn from the first version of
    each labelled product. Fitted taggers are not stored in a file: loading one would run code from it.
    """
    assert options.labels is not None
    taggers = fit_taggers(settings, options.labels, encoder_version, options.abstain, options.table_format)
    columns = [*embedding_rows.KEY, *embedding_rows.VECTOR_COLUMNS, *embedding_rows.FLAG_COLUMNS]

    def build(vectors: pa.Table, products: pa.Table) -> pa.Table:
        rows = embedding_rows.fix_vector_width(vectors.select(columns)).append_column("title", products["title"])
        return taggers.tag(rows, datetime.fromtimestamp(0, UTC))  # build_rows replaces it with the arrival time

    return build
