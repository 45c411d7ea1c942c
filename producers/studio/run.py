"""Runs `produce studio` with its checked options: opens models and store, and serves until the shutdown."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from feature_repo.auth import ServerAccess
from feature_repo.config import Settings
from feature_repo.files.locks import hold_lock
from feature_repo.server import descriptors
from feature_repo.server.http_server import HttpServer
from feature_repo.server.request_log import AccessLog, RequestTracker, open_access_log
from feature_repo.server.shutdown import graceful_shutdown
from feature_repo.serving_limits import CaptionLimits, ConnectionLimits, PictureLimits
from feature_repo.vocabulary import read_words
from producers.captions.edit_log import EditLog
from producers.captions.prompts import CaptionOptions
from producers.encoders import load
from producers.encoders.captioner import open_captioner
from producers.studio.application import create_studio_app
from producers.studio.caption_service import CaptionService
from producers.studio.caption_writer import CaptionWriter
from producers.studio.metrics import StudioMetrics
from producers.studio.picture_model import PictureModel
from producers.studio.picture_queue import PictureQueue
from producers.studio.picture_store import PictureStore
from producers.studio.picture_tagger import open_tagger
from producers.studio.products import ProductReader

STEP = "studio-pictures"
"""Name of the lock of the queue: one studio of a deployment generates pictures."""


@dataclass(frozen=True)
class StudioOptions:
    """The checked options of `produce studio`, under their names; None if not given."""

    deployment: Settings
    encoder: str
    words: Path
    labels: Path | None
    tags_encoder: str | None
    """None takes `encoder`."""
    picture_model: Path | None
    captions: CaptionOptions
    caption_limits: CaptionLimits
    picture_limits: PictureLimits
    connections: ConnectionLimits
    access: ServerAccess
    port: int
    access_log: str
    serve_url: str | None


def open_captions(options: StudioOptions, metrics: StudioMetrics) -> CaptionService:
    """Open what writes captions; its threads run until `close`.

    Raises:
        NotFoundError: a file, a checkpoint or its language head does not exist.
        InvalidInputError: a file is not usable.
        EncoderMismatchError: the encoder of the tags is not the one in production.
    """
    probability = options.captions.min_probability
    vocabulary = read_words(options.words)
    captioner = open_captioner(options.encoder)
    tagger = None
    if options.labels is not None:
        encoder = load(options.tags_encoder or options.encoder)
        tagger = open_tagger(options.deployment, encoder, options.labels, probability)
    reader = ProductReader(options.deployment, probability)
    return CaptionService(
        CaptionWriter(captioner, tagger, vocabulary, reader.list_brands),
        reader,
        limits=options.caption_limits,
        options=options.captions,
        metrics=metrics,
    )


@dataclass(frozen=True)
class OpenStudio:
    """A studio whose threads run; it answers while its server runs."""

    server: HttpServer
    queue: PictureQueue | None
    metrics: StudioMetrics


@contextmanager
def open_studio(
    options: StudioOptions, model: PictureModel | None, log: TextIO | None, on_ready: Callable[[str], None]
) -> Iterator[OpenStudio]:
    """Open a studio until the end of the block, by which its server must have ended.

    Args:
        options: the options.
        model: generates pictures; None: there are no routes for them.
        log: gets a line for each request; None writes no log.
        on_ready: called once with the address, when requests are answered.

    Raises:
        VitrineError: as `open_captions`.
    """
    metrics = StudioMetrics()
    with ExitStack() as stack:
        captions = open_captions(options, metrics)
        stack.callback(captions.close)
        queue = None
        if model is not None:
            store = PictureStore(options.deployment.local)
            queue = PictureQueue(store, model, limits=options.picture_limits, clock=_now, metrics=metrics)
            stack.callback(queue.close)
        studio = create_studio_app(
            captions,
            EditLog(options.deployment),
            queue,
            options.access,
            RequestTracker(metrics, AccessLog(log)),
            serve_url=options.serve_url,
            clock=_now,
        )
        stack.callback(studio.pages.close)
        scheme = "http" if options.access.certificate is None else "https"
        server = HttpServer(
            studio.app,
            options.access,
            options.port,
            limits=options.connections.for_deadline(options.caption_limits.deadline_seconds),
            metrics=metrics,
            on_ready=lambda: on_ready(f"{scheme}://{options.access.host}:{server.port}"),
        )
        yield OpenStudio(server, queue, metrics)


def serve_studio(options: StudioOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until the shutdown.

    Args:
        options: the options.
        on_ready: called once with the address, when requests are answered.

    Raises:
        VitrineError: as `open_captions`; the port is taken; or the text-to-image checkpoint cannot be opened.
        ConflictError: another studio of the deployment generates pictures.
    """
    descriptors.raise_descriptor_limit()
    with graceful_shutdown() as shutdown, ExitStack() as stack:
        log = stack.enter_context(open_access_log(options.access_log))
        model = None
        if options.picture_model is not None:
            from producers.studio.stable_diffusion import StableDiffusionModel  # needs the extra `picture`

            stack.enter_context(hold_lock(options.deployment, STEP))
            model = StableDiffusionModel(options.picture_model)
        studio = stack.enter_context(open_studio(options, model, log, on_ready))
        gc.collect()
        gc.freeze()  # later collections skip the models; scanning them would delay requests
        shutdown.on_signal(studio.server.stop)
        studio.server.run()


def _now() -> datetime:
    return datetime.now(UTC)
