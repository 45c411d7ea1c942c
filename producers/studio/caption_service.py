"""Answers requests for captions: bounded, decoded in a few threads, written in batches by one thread."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.images.decoding import UnusableImageError, check_pixels, read_bytes
from feature_repo.images.geometry import Geometry
from feature_repo.location import BucketObject
from feature_repo.server.batching import Batcher
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.workers import WorkerPool
from feature_repo.serving_limits import CaptionLimits
from producers.captions.facts import Fact, ProductFacts
from producers.captions.prompts import CaptionOptions
from producers.encoders.image_loader import decode_in_process
from producers.studio.caption_request import CaptionRequest
from producers.studio.caption_writer import CaptionAnswer, CaptionJob, CaptionWriter
from producers.studio.metrics import StudioMetrics
from producers.studio.products import ProductReader


class CaptionService:
    """Answers requests. Safe to share between threads and an event loop; its threads run until `close`.

    Args:
        writer: writes the lines.
        reader: reads products by their ids.
        limits: how much a request may have, and how many are in progress.
        options: the language of requests that name none, and the probability from which a value is sure.
        metrics: counts lines and batches.
    """

    def __init__(
        self,
        writer: CaptionWriter,
        reader: ProductReader,
        *,
        limits: CaptionLimits,
        options: CaptionOptions,
        metrics: StudioMetrics,
    ) -> None:
        self.limits = limits
        self.encoder_version = writer.encoder_version
        self.vocabulary = writer.vocabulary
        self.language = options.language
        self.reader = reader
        self._writer = writer
        self._options = options
        self.metrics = metrics
        self._lock = threading.Lock()
        self._in_progress = 0
        self._tags = reader.list_tags() | (frozenset() if writer.tagger is None else writer.tagger.tags)
        self._decoders = WorkerPool(limits.workers, limits.queue_size, metrics.in_work, name="decode")
        self._batcher: Batcher[CaptionJob, CaptionAnswer] = Batcher(
            writer.write,
            max_items=limits.max_batch,
            wait_seconds=limits.batch_wait_seconds,
            on_batch=lambda jobs: metrics.caption_batches.inc(),
            name="captions",
        )

    @property
    def is_running(self) -> bool:
        """Whether the model's thread takes requests."""
        return self._batcher.is_running

    @property
    def takes_pictures(self) -> bool:
        """Whether it captions pictures that are no products of the store."""
        return self._writer.tagger is not None

    def close(self) -> None:
        """Finish the work in progress and stop the threads."""
        self._decoders.close()
        self._batcher.close()

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Hold a place for a request.

        Raises:
            RequestError: RESOURCE_EXHAUSTED with status 503 if all are taken.
        """
        with self._lock:
            if self._in_progress >= self.limits.queue_size:
                message = f"{self.limits.queue_size:,} requests for captions are in progress or waiting; try again"
                raise RequestError(ErrorCode.RESOURCE_EXHAUSTED, message, status=503)
            self._in_progress += 1
        try:
            yield
        finally:
            with self._lock:
                self._in_progress -= 1

    def count_in_progress(self) -> int:
        """Return the number of reserved places."""
        return self._in_progress

    async def answer(
        self, request: CaptionRequest, on_event: Callable[[str], None] = lambda event: None
    ) -> CaptionAnswer:
        """Return the lines for a request, for which the caller has reserved a place.

        Args:
            request: the request.
            on_event: called in the event loop with `prepared` when the picture is decoded, and with `started` when the
                model begins.

        Raises:
            VitrineError: the product is not known, or the picture or an attribute is not accepted.
            RequestError: DEADLINE_EXCEEDED, or UNAVAILABLE during shutdown.
        """
        loop, end = asyncio.get_running_loop(), time.monotonic() + self.limits.deadline_seconds

        def on_start() -> None:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(on_event, "started")

        job = await self._decoders.run_async(lambda: self.prepare(request, on_start), self.limits.deadline_seconds)
        on_event("prepared")
        future = asyncio.wrap_future(self._batcher.submit([job]))
        try:
            (answer,) = await asyncio.wait_for(future, max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise RequestError(
                ErrorCode.DEADLINE_EXCEEDED, "the deadline passed before the lines were written"
            ) from None
        self.metrics.captions.inc(len(answer.lines))
        return answer

    def answer_blocking(self, request: CaptionRequest) -> CaptionAnswer:
        """Do the same as `answer` in a thread that may wait, and reserve a place."""
        with self.reserve():
            (answer,) = self._batcher.answer([self.prepare(request, lambda: None)])
        self.metrics.captions.inc(len(answer.lines))
        return answer

    def prepare(self, request: CaptionRequest, on_start: Callable[[], None]) -> CaptionJob:
        """Read and decode the picture of a request.

        Raises:
            VitrineError: the product is not known, or the picture or an attribute is not accepted.
        """
        given = self._check_attributes(request.attributes or {})
        facts: ProductFacts | None = None
        brand, title, picture = None, request.title, request.picture or b""
        if request.product_id is not None:
            product = self.reader.find(request.product_id)
            if product.picture is None:
                raise NotFoundError(f"product_id: product {product.product_id[:100]!r} has no picture")
            facts, brand, title = product.facts, product.brand, title or product.title
            picture = self._read_picture(product.picture)
        elif self._writer.tagger is None:
            raise InvalidInputError(
                "picture: this studio captions products of the store only, because it has no taggers; start it with "
                "--labels FILE"
            )
        try:
            check_pixels(picture, self.limits.max_picture_pixels)
            pixels = _decode(picture, self._writer.geometry)
            tagged = None
            if request.picture is not None and self._writer.tagger is not None:
                geometry = self._writer.tagger.geometry
                tagged = pixels if geometry == self._writer.geometry else _decode(picture, geometry)
        except UnusableImageError as error:
            raise InvalidInputError(f"picture: it cannot be used: {error}") from None
        options = CaptionOptions(
            language=request.language or self._options.language,
            style=request.style,
            min_probability=self._options.min_probability,
            length=request.length,
            candidates=request.count,
            seed=request.seed,
        )
        seed = int.from_bytes(blake2b(picture, digest_size=7).digest())
        return CaptionJob(pixels, tagged, title, facts, given, brand, seed, options, on_start)

    def _read_picture(self, picture: Path | BucketObject | bytes) -> bytes:
        try:
            return picture if isinstance(picture, bytes) else read_bytes(picture)
        except UnusableImageError as error:  # its detail is a path of this machine
            raise NotFoundError(f"product_id: the picture of the product cannot be read: {error.reason}") from None

    def _check_attributes(self, attributes: Mapping[str, str]) -> tuple[Fact, ...]:
        """Return the attributes that a caller gives as facts.

        Raises:
            InvalidInputError: the words have no such attribute or value, or the attribute is no tag.
        """
        for name, value in attributes.items():
            if name not in self.vocabulary or name not in self._tags:
                known = ", ".join(sorted(self._tags & self.vocabulary.keys()))
                raise InvalidInputError(f"attributes: {name[:40]!r} is no tag that has words; expected one of {known}")
            if value not in self.vocabulary[name]:
                known = ", ".join(self.vocabulary[name])
                raise InvalidInputError(f"attributes.{name}: {value[:40]!r} has no words; expected one of {known}")
        return tuple(Fact(name, value, 1.0) for name, value in attributes.items())


def describe_answer(answer: CaptionAnswer, encoder_version: str) -> dict[str, Any]:
    """Return an answer as JSON can hold it."""

    def describe(fact: Fact) -> dict[str, Any]:
        source = "caller" if fact.tag in answer.given else "tags"
        return {"attribute": fact.tag, "value": fact.value, "probability": fact.probability, "source": source}

    return {
        "candidates": [
            {
                "text": line.text,
                "score": line.score,
                "fluency": line.fluency,
                "match": line.match,
                "stated": [describe(fact) for fact in line.stated],
            }
            for line in answer.lines
        ],
        "missing_reason": answer.missing_reason,
        "sure": [describe(fact) for fact in answer.facts],
        "style": answer.options.style,
        "language": answer.options.language,
        "encoder_version": encoder_version,
    }


def format_event(name: str, data: Mapping[str, Any], *, as_lines: bool) -> bytes:
    """Return an event of a stream: a line of JSON with the name in `event`, or a server-sent event."""
    if as_lines:
        return (json.dumps({"event": name, **data}, ensure_ascii=False) + "\n").encode()
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _decode(picture: bytes, geometry: Geometry | None) -> Any:
    """Return a picture resized, uint8 [height, width, 3]; as an RGB image without a geometry."""
    decoded = decode_in_process([picture], geometry)
    if decoded.refused:
        raise decoded.refused[0]
    return decoded.images[0] if decoded.pixels is None else np.asarray(decoded.pixels[0])
