"""`pipeline.encode_chunks` on a Ray cluster: tasks decode images, actors hold the encoder.

The program that commits the vectors also reads the catalogue rows, and submits them part by part, a bounded number
ahead. Ray Data is not used, because it would load the encoder again for every group of rows that is submitted. Ray
repeats a task or restarts an actor that is lost with its machine.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from feature_repo.distributed import cluster
from feature_repo.errors import EncoderMismatchError, UnavailableError, VitrineError
from feature_repo.location import BucketPath
from producers.encoders import load
from producers.encoders.encoder import Encoder
from producers.encoders.pipeline import DecodedChunk, EncodedChunk, decode_rows, encode_rows
from producers.encoders.prefetch import iterate_in_background
from producers.encoders.stage_seconds import ZERO_SECONDS, StageSeconds

ROWS_PER_PART = 512
"""Rows that a task decodes: 77 MB of pixels at 224 x 224."""
PARTS_AHEAD = 2
"""Unfinished parts per CPU and per actor."""


def encode_chunks(
    chunks: Iterable[pa.Table], encoder: Encoder, path_or_name: str, *, pictures: BucketPath | None = None
) -> Generator[EncodedChunk, None, None]:
    """Encode the images and titles of catalogue rows on the Ray cluster that this program is connected to.

    Yields one `EncodedChunk` per chunk, in order. An actor is a process that holds the encoder. There is one per GPU; a
    cluster without a GPU has one per two CPUs, and the other CPUs decode. When the generator has ended or was closed,
    the actors finish what was submitted and end.

    Args:
        chunks: tables with the columns product_id, title, image, image_bytes and event_timestamp of schema.CATALOGUE, a
            few thousand rows each. Image paths must be valid on every machine of the cluster. The iterable is read from
            another thread.
        encoder: the encoder as loaded by this program; each actor loads its own.
        path_or_name: directory or hub name from which each machine loads the encoder. A directory that exists here is
            made an absolute path.
        pictures: prefix of the bucket whose objects `image` may name; None if it names none.

    Raises:
        EncoderMismatchError: a machine of the cluster has another encoder under `path_or_name`.
        UnavailableError: the cluster lost the rows, as when it was shut down.
        VitrineError: as raised in a task or an actor. Unusable images and titles raise nothing; they are in the
            `unusable` of their chunk.
    """
    return iterate_in_background(_encode(iter(chunks), encoder, path_or_name, pictures))


class _Actor:
    """An encoder on some machine of the cluster, loaded once."""

    def __init__(self, path_or_name: str, version: str) -> None:
        """Remember what to load.

        Args:
            path_or_name: directory on that machine, or hub name.
            version: the version that the encoder must have, `name@fingerprint`.
        """
        self._path_or_name = path_or_name
        self._version = version

    @cached_property  # loaded with the first rows: Ray does not pass on what an actor raises while it is created
    def _encoder(self) -> Encoder:
        encoder = load(self._path_or_name)
        if encoder.version != self._version:
            raise EncoderMismatchError(
                f"encoder {self._path_or_name} is {encoder.version} on a machine of the cluster and {self._version} "
                "here; put the same directory on each, or on a shared disk"
            )
        return encoder

    def encode(self, decoded: DecodedChunk) -> EncodedChunk:
        """Return the vectors of decoded rows.

        Raises:
            EncoderMismatchError: the encoder on this machine has another version.
        """
        return encode_rows(decoded, self._encoder)


def _encode(
    chunks: Iterator[pa.Table], encoder: Encoder, path_or_name: str, pictures: BucketPath | None
) -> Iterator[EncodedChunk]:
    """Submit the chunks in parts of ROWS_PER_PART rows, a bounded number ahead, and yield their vectors in order."""
    if Path(path_or_name).is_dir():
        path_or_name = str(Path(path_or_name).resolve())
    decode = ray.remote(num_cpus=1)(decode_rows)
    # The actors end when this frame is released and they have done what was submitted.
    actors = _start_actors(path_or_name, encoder.version)
    max_unfinished, next_actor = PARTS_AHEAD * (cluster.count_cpus() + len(actors)), cycle(actors)
    pending: deque[tuple[list[Any], StageSeconds]] = deque()
    unfinished: list[Any] = []
    while True:
        start = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            break
        read = StageSeconds(read=time.perf_counter() - start)
        parts: list[Any] = []
        for first in range(0, max(len(chunk), 1), ROWS_PER_PART):
            if len(unfinished) >= max_unfinished:
                excess = len(unfinished) - max_unfinished + 1
                _, unfinished = ray.wait(unfinished, num_returns=excess, fetch_local=False)
            rows = np.arange(first, min(first + ROWS_PER_PART, len(chunk)))
            part = chunk.take(pa.array(rows))  # a slice would be sent with the whole chunk that it is a view of
            decoded = decode.remote(part, encoder.geometry, has_images=encoder.has_images, pictures=pictures)
            parts.append(next(next_actor).encode.remote(decoded))
            unfinished.append(parts[-1])
        pending.append((parts, read))
        if len(pending) > 1:  # the cluster works on the next chunk while this one is joined and committed
            yield _join_parts(*pending.popleft())
    while pending:
        yield _join_parts(*pending.popleft())


def _start_actors(path_or_name: str, version: str) -> list[Any]:
    """Start one actor per GPU, or one per two CPUs if the cluster has no GPU; return their handles."""
    gpus, cpus = int(ray.cluster_resources().get("GPU", 0)), cluster.count_cpus()
    # On a cluster with one CPU the actor reserves none, else no CPU would be left to decode.
    resources = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1 if cpus > 1 else 0}
    actor: Any = ray.remote(**resources, max_restarts=-1, max_task_retries=-1)(_Actor)
    return [actor.remote(path_or_name, version) for _ in range(gpus or max(1, cpus // 2))]


def _join_parts(parts: list[Any], read: StageSeconds) -> EncodedChunk:
    """Wait for the parts of a chunk, and concatenate them in their order."""
    try:
        chunks: list[EncodedChunk] = ray.get(parts)
    except RayTaskError as error:
        if not isinstance(error.cause, VitrineError):
            raise
        raise type(error.cause)(str(error.cause)) from error
    except RayError as error:
        raise UnavailableError(
            f"the Ray cluster lost rows that it was to encode ({' '.join(str(error).split())[:300]}); run this again"
        ) from error
    return EncodedChunk(
        pa.concat_tables([chunk.catalogue for chunk in chunks]),
        np.concatenate([chunk.image for chunk in chunks]),
        np.concatenate([chunk.text for chunk in chunks]),
        tuple(unusable for chunk in chunks for unusable in chunk.unusable),
        sum((chunk.seconds for chunk in chunks), ZERO_SECONDS) + read,
    )
