"""`encode_chunks` on a Ray cluster: pictures decoded by its processors, the encoder held by actors.

The rows are read by the program that commits what came of them, part by part, a bounded number ahead: a dataset of
Ray Data would load the encoder anew for each stretch of rows that is handed to it, so these are Ray's tasks and actors
themselves. A task or an actor that is lost with its machine is done again elsewhere.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from feature_repo.distributed import cluster
from feature_repo.errors import VitrineError
from producers.encoders import load
from producers.encoders.encoder import Encoder
from producers.encoders.pipeline import ZERO_SECONDS, DecodedRows, EncodedChunk, StageSeconds, decode_rows, encode_rows
from producers.encoders.prefetch import iterate_in_background

ROWS_PER_PART = 512
"""Rows that a task decodes: 77 MB of pictures at 224 pixels."""
AHEAD = 2
"""Parts on their way for each processor and each actor."""


def encode_chunks(
    chunks: Iterable[pa.Table], encoder: Encoder, path_or_name: str, now: datetime
) -> Generator[EncodedChunk, None, None]:
    """As `pipeline.encode_chunks`, on the cluster that the program is connected to.

    There is an actor for each GPU, or where there is none for every second processor; the others decode.

    Args:
        chunks: see there; files that they name lie under the same path on every machine.
        encoder: as opened here; each actor opens its own.
        path_or_name: from where, on every machine.
        now: the created timestamp.

    Raises:
        VitrineError: as a task raised it, a machine has another encoder there, or the cluster was lost.
    """
    return iterate_in_background(_embedded(iter(chunks), encoder, path_or_name, now))


class _Actor:
    """An encoder of its own on some machine, opened once."""

    def __init__(self, path_or_name: str, version: str) -> None:
        self._path_or_name = path_or_name
        self._version = version

    @cached_property  # with the first rows: Ray does not hand on what is raised while an actor is made
    def _encoder(self) -> Encoder:
        model = load(self._path_or_name)
        if model.version != self._version:
            raise VitrineError(
                f"encoder {self._path_or_name} is {model.version} on a machine of the cluster and {self._version} "
                "here; put the same directory on each, or on a shared disk"
            )
        return model

    def encode(self, part: DecodedRows, now: datetime) -> EncodedChunk:
        return encode_rows(part, self._encoder, now)


def _embedded(chunks: Iterator[pa.Table], encoder: Encoder, path_or_name: str, now: datetime) -> Iterator[EncodedChunk]:
    if Path(path_or_name).is_dir():
        path_or_name = str(Path(path_or_name).resolve())
    decode = ray.remote(num_cpus=1)(decode_rows)
    actors = _actors(
        path_or_name, encoder.version
    )  # they end with this frame, when they have done what they were given
    most, turns = AHEAD * (cluster.count_cpus() + len(actors)), cycle(actors)
    waiting: deque[tuple[list[Any], StageSeconds]] = deque()
    unfinished: list[Any] = []
    while True:
        start = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            break
        read = StageSeconds(read=time.perf_counter() - start)
        parts: list[Any] = []
        for first in range(0, max(len(chunk), 1), ROWS_PER_PART):
            if len(unfinished) >= most:
                _, unfinished = ray.wait(unfinished, num_returns=len(unfinished) - most + 1, fetch_local=False)
            rows = np.arange(first, min(first + ROWS_PER_PART, len(chunk)))
            part = chunk.take(pa.array(rows))  # a slice would travel with the whole chunk that it is a view of
            pictures = decode.remote(part, encoder.geometry, images=encoder.has_images)
            parts.append(next(turns).encode.remote(pictures, now))
            unfinished.append(parts[-1])
        waiting.append((parts, read))
        if len(waiting) > 1:  # the cluster has the next to do while this one is joined and committed
            yield _joined(*waiting.popleft())
    while waiting:
        yield _joined(*waiting.popleft())


def _actors(path_or_name: str, version: str) -> list[Any]:
    gpus, cpus = int(ray.cluster_resources().get("GPU", 0)), cluster.count_cpus()
    # An actor that held the only processor would leave none to decode.
    wants = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1 if cpus > 1 else 0}
    actor: Any = ray.remote(**wants, max_restarts=-1, max_task_retries=-1)(_Actor)
    return [actor.remote(path_or_name, version) for _ in range(gpus or max(1, cpus // 2))]


def _joined(parts: list[Any], read: StageSeconds) -> EncodedChunk:
    """What came of the parts of a chunk."""
    try:
        made: list[EncodedChunk] = ray.get(parts)
    except RayTaskError as error:
        if not isinstance(error.cause, VitrineError):
            raise
        raise VitrineError(str(error.cause)) from error
    except RayError as error:
        raise VitrineError(
            f"the Ray cluster lost what it was to encode ({' '.join(str(error).split())[:300]}); run this again"
        ) from error
    return EncodedChunk(
        pa.concat_tables([part.rows for part in made]),
        tuple(unusable for part in made for unusable in part.unusable),
        sum((part.seconds for part in made), ZERO_SECONDS) + read,
    )
