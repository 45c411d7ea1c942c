"""Answers requests for pairs: parsed, read, scored in batches across requests, and written as Arrow or JSON.

The response has one row for each pair, in the order of the request:

    probability                            float32, that both are the same product; calibrated, 0 after a veto
    is_same                                bool, whether it reaches the threshold that the verifier was trained to
    reason_image, reason_title, ...        float32, what each adds to the log-odds; minus infinity is a veto
    vetoes                                 list<string>, measures that both products state differently
    encoder_version, verifier_version      string, the same in each row
"""

import logging
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from PIL import Image
from pydantic_core import to_json

from consumers.pairs.products import IndexedProductReader, KnownProduct, describe_product
from consumers.pairs.scoring import Pair, PairScorer, ScoredPair
from consumers.serving.metrics import Metrics
from consumers.serving.pair_request import PairedProduct, PairRequest, parse_request
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError, UnavailableError
from feature_repo.exported.encoder import ExportedEncoder, open_encoder
from feature_repo.extras import require
from feature_repo.index.rows import find_group_folder
from feature_repo.pairs.verifier import FOLDER, REASONS, PairVerifier, load_verifier
from feature_repo.server.batching import Batcher
from feature_repo.server.errors import ErrorCode, RequestError
from feature_repo.server.request_log import RequestContext
from feature_repo.server.workers import WorkerPool
from feature_repo.serving_limits import PairLimits

SERVICE = "pairs"
"""What the access log names as the service of a request for pairs."""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class PairExecutor:
    """Answers requests for pairs. Safe to share between threads and an event loop; its threads run until `close`.

    Args:
        scorer: scores pairs.
        reader: reads products by their ids; None refuses ids.
        limits: how much a request may have, and how many are processed and may wait.
        deadline_seconds: time allowed for one request.
        metrics: counts pairs and batches.
    """

    def __init__(
        self,
        scorer: PairScorer,
        reader: IndexedProductReader | None,
        *,
        limits: PairLimits,
        deadline_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.limits = limits
        self._scorer = scorer
        self._reader = reader
        self._deadline_seconds = deadline_seconds
        self._metrics = metrics
        self._pool = WorkerPool(limits.workers, limits.queue_size, metrics.in_work, name="pairs")
        self._batcher: Batcher[Pair, ScoredPair] = Batcher(
            scorer.score,
            max_items=limits.max_batch_pairs,
            wait_seconds=limits.batch_wait_seconds,
            on_batch=lambda pairs: metrics.pair_batches.inc(),
            name="pair-batches",
        )

    def warm_up(self) -> None:
        """Score one pair, so that the first caller does not wait for what loads late.

        Raises:
            CorruptDataError: a file of the export is damaged.
            UnavailableError: the towers run elsewhere, and do not answer.
        """
        picture = BytesIO()
        Image.new("RGB", (64, 64)).save(picture, "png")
        encoder = self._scorer.encoder
        product = describe_product(encoder, title="x", picture=picture.getvalue() if encoder.has_images else None)
        self._batcher.answer([(product, product)])

    def close(self) -> None:
        """Finish the work in progress and stop the threads. Later requests fail with UNAVAILABLE."""
        self._pool.close()
        self._batcher.close()

    def execute(
        self, data: bytes | memoryview, context: RequestContext, encode: Callable[[pa.RecordBatch], Result]
    ) -> Result:
        """Answer a request. Blocks until the response is encoded or the deadline has passed.

        Args:
            data: the request as JSON.
            context: of `RequestExecutor.track`; gets the number of pairs.
            encode: converts the response in the worker thread; its result is returned.

        Raises:
            VitrineError: the request is invalid, a product is not known, or the towers do not answer.
            RequestError: RESOURCE_EXHAUSTED if the queue is full, DEADLINE_EXCEEDED, or UNAVAILABLE during shutdown.
        """
        request, timeout = self._parse(data, context)
        result = self._pool.run(lambda: encode(self._answer(request)), timeout)
        self._count(request, context)
        return result

    async def execute_async(
        self, data: bytes | memoryview, context: RequestContext, encode: Callable[[pa.RecordBatch], Result]
    ) -> Result:
        """Do the same as `execute` without blocking the event loop."""
        request, timeout = self._parse(data, context)
        result = await self._pool.run_async(lambda: encode(self._answer(request)), timeout)
        self._count(request, context)
        return result

    def _parse(self, data: bytes | memoryview, context: RequestContext) -> tuple[PairRequest, float]:
        """Return the request and its time limit in seconds."""
        context.service = SERVICE
        request = parse_request(data, self.limits)
        limit = self._deadline_seconds
        return request, limit if request.deadline_ms is None else min(limit, request.deadline_ms / 1e3)

    def _answer(self, request: PairRequest) -> pa.RecordBatch:
        products = self._read_sides(request.list_sides())
        try:
            scored = self._batcher.answer(list(zip(products[::2], products[1::2], strict=True)))
        except UnavailableError as error:
            _log.error("%s", error)
            message = "the encoder's server does not answer; the log of this server has the reason"
            raise RequestError(ErrorCode.UNAVAILABLE, message) from error
        return build_response(scored, self._scorer.encoder.encoder_version, self._scorer.verifier)

    def _count(self, request: PairRequest, context: RequestContext) -> None:
        context.rows = len(request.pairs)
        self._metrics.pairs.inc(len(request.pairs))

    def _read_sides(self, sides: Sequence[tuple[str, PairedProduct]]) -> list[KnownProduct]:
        """Return the products of a request; an id that occurs twice is one product.

        Raises:
            NotFoundError: an id is not in the index.
            InvalidInputError: a picture cannot be decoded or is too large, or there is no index. The message names the
                place in the request.
        """
        by_id = self._read_ids(list(dict.fromkeys(side.product_id for _, side in sides if side.product_id is not None)))
        products = []
        for place, side in sides:
            if side.product_id is None:
                products.append(self._describe_side(place, side))
            elif (product := by_id[side.product_id]) is not None:
                products.append(product)
            else:
                raise NotFoundError(f"{place}.product_id: there is no such product in the index of `produce groups`")
        return products

    def _read_ids(self, product_ids: Sequence[str]) -> dict[str, KnownProduct | None]:
        if not product_ids:
            return {}
        try:
            if self._reader is not None:
                return dict(zip(product_ids, self._reader.read(product_ids), strict=True))
        except NotFoundError:
            pass
        raise InvalidInputError(
            "the server has no index of products, which `produce groups` writes; give title and picture instead of "
            "product_id"
        )

    def _describe_side(self, place: str, side: PairedProduct) -> KnownProduct:
        try:
            return describe_product(
                self._scorer.encoder,
                title=side.title,
                picture=side.picture,
                brand=side.brand,
                price=side.price,
                category=side.category,
                facts=" ".join(f"{name} {value}" for name, value in (side.attributes or {}).items()),
                max_pixels=self.limits.max_picture_pixels,
            )
        except InvalidInputError as error:
            raise InvalidInputError(f"{place}.picture: {error}") from None


def open_pairs(
    settings: Settings,
    towers: Path,
    *,
    triton: str | None,
    is_required: bool,
    deadline_seconds: float,
    refresh_seconds: float,
    metrics: Metrics,
) -> PairExecutor | None:
    """Return what scores pairs by an export, with products of the index of `produce groups`.

    None if the export has no pair verifier, and none is required.

    Args:
        settings: the deployment.
        towers: folder of the export.
        triton: address of a Triton server that serves it; None runs the towers in this process.
        is_required: whether an export without a pair verifier is an error.
        deadline_seconds: time allowed for one request.
        refresh_seconds: time until a change of the products is seen.
        metrics: counts pairs and batches.

    Raises:
        NotFoundError: the folder is no export, or has no pair verifier.
        CorruptDataError: a file of the export is damaged.
        ModuleNotFoundError: LightGBM is not installed.
    """
    encoder = open_encoder(towers, threads=1, triton=triton)
    verifier = open_verifier(towers, encoder)
    if verifier is None and not is_required:
        return None
    if verifier is None:
        raise NotFoundError(f"{towers}: no pair verifier; run: produce export --with-verifier --output {towers}")
    require("rank", "lightgbm")
    folder = find_group_folder(settings, verifier.version)
    return PairExecutor(
        PairScorer(encoder, verifier),
        IndexedProductReader(folder, encoder.encoder_version, refresh_seconds=refresh_seconds),
        limits=PairLimits(),
        deadline_seconds=deadline_seconds,
        metrics=metrics,
    )


def open_verifier(towers: Path, encoder: ExportedEncoder) -> PairVerifier | None:
    """Return the pair verifier of an export; None if it has none.

    Raises:
        CorruptDataError: its file is missing or damaged.
    """
    version = encoder.description.pair_verifier
    return load_verifier(towers / FOLDER / f"{version}.npz") if version else None


def build_response(scored: Sequence[ScoredPair], encoder_version: str, verifier: PairVerifier) -> pa.RecordBatch:
    """Return the response, one row for each pair."""
    columns: dict[str, pa.Array] = {
        "probability": pa.array([one.probability for one in scored], pa.float32()),
        "is_same": pa.array([one.probability >= verifier.threshold and not one.vetoes for one in scored]),
        **{
            f"reason_{name}": pa.array([one.reasons[column] for one in scored], pa.float32())
            for column, name in enumerate(REASONS)
        },
        "vetoes": pa.array([list(one.vetoes) for one in scored], pa.list_(pa.string())),
        "encoder_version": pa.array([encoder_version] * len(scored)),
        "verifier_version": pa.array([verifier.version] * len(scored)),
    }
    return pa.RecordBatch.from_pydict(columns)


def to_json_response(batch: pa.RecordBatch) -> bytes:
    """Return a response as JSON, with versions once. Minus infinity is null."""
    rows = batch.to_pylist()
    pairs = [
        {
            **{name: row[name] for name in ("probability", "is_same")},
            "reasons": {name: row[f"reason_{name}"] for name in REASONS},
            "vetoes": row["vetoes"],
        }
        for row in rows
    ]
    versions = {name: rows[0][name] for name in ("encoder_version", "verifier_version")}
    return to_json({**versions, "pairs": pairs}, inf_nan_mode="null")
