"""Read pictures in a bucket ahead, several at a time: each request takes long, and a decoder must not wait for it."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from feature_repo.images.decoding import Source, UnusableImageError, read_bytes
from feature_repo.location import REQUESTS, BucketObject

Read = Path | bytes | UnusableImageError
"""A picture on disk, which is read when it is decoded, its bytes, or why it cannot be read."""


def read_ahead(sources: Sequence[Source]) -> Iterator[Read]:
    """Yield each picture in order. Those in a bucket are read in threads, at most REQUESTS ahead of the caller.

    So at most REQUESTS pictures are in memory besides the one that was yielded.

    Raises:
        UnavailableError: the bucket does not answer.
    """
    if not any(isinstance(source, BucketObject) for source in sources):
        yield from (source for source in sources if not isinstance(source, BucketObject))
        return
    pending: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(REQUESTS) as pool:
        for source in sources:
            pending.append(pool.submit(_read, source))
            if len(pending) > REQUESTS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _read(source: Source) -> Read:
    if not isinstance(source, BucketObject):
        return source
    try:
        return read_bytes(source)
    except UnusableImageError as error:
        return error
