"""Downloads the images that a products table names by URL, in parallel and so that a later run continues.

Each URL is asked for once, whatever the number of its products. An image that is here is not asked for again unless
`revalidate` is set; what failed is asked for again by the next run.
"""

import itertools
import math
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import urllib3

from feature_repo.content_hash import content_hash
from feature_repo.errors import InvalidInputError
from feature_repo.images.picture_folders import LmdbFolder, PictureFolder
from feature_repo.offline import input_files, validation
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat
from producers.catalogue import validate
from producers.catalogue.pack import IMAGES_FOLDER
from producers.downloads import download_log, fetch
from producers.downloads.download_log import DownloadLog, KnownUrl
from producers.downloads.fetch import FetchError, FetchLimits
from producers.downloads.host_queues import HostQueues

BLOCK_ROWS = 4096
MAX_PENDING = 4096
"""URLs that wait or are asked for at a time."""
COMMIT_IMAGES, COMMIT_BYTES = 256, 64 * 2**20
"""Images, and their bytes, that are in memory before they are written."""
MAX_REDIRECTS = 5
TOO_MANY_REDIRECTS = f"more than {MAX_REDIRECTS} redirects"
ASKED_TO_WAIT = "the host asks to wait longer than this run does"


@dataclass(frozen=True)
class DownloadOptions:
    """How hosts are asked."""

    workers: int = 16
    """Images that are asked for at once."""
    per_host: int = 4
    """Images that one host is asked for at once."""
    delay_seconds: float = 0.05
    """Least time between two requests to one host."""
    attempts: int = 4
    """Requests for one URL, redirects apart, while the failure is a temporary one."""
    backoff_seconds: float = 1.0
    """Wait before the second attempt; it doubles with each further one."""
    max_wait_seconds: float = 120.0
    """The longest wait that a host may ask for (Retry-After). If it asks for more, it is left alone in this run."""
    limits: FetchLimits = field(default_factory=FetchLimits)


@dataclass(frozen=True)
class DownloadSummary:
    """What became of the distinct URLs of a table: the four numbers and the failures add up to all of them."""

    downloaded: int
    """Images that were written."""
    unchanged: int
    """Images that the server said are unchanged."""
    present: int
    """Images that were here and were not asked for."""
    failed: dict[str, int]
    """URLs that gave no image, by reason, the most frequent first."""
    examples: dict[str, str]
    """For each reason a URL, without its query, which can hold an access token."""

    def __str__(self) -> str:
        failed = sum(self.failed.values())
        total = self.downloaded + self.unchanged + self.present + failed
        lines = [
            f"{total:,} image URLs: {self.downloaded:,} downloaded, {self.unchanged:,} unchanged, "
            f"{self.present:,} here already, {failed:,} failed"
        ]
        lines += [
            f"  not downloaded {count:,}: {reason}, such as {self.examples[reason]}"
            for reason, count in self.failed.items()
        ]
        lines += ["  run this again to ask for them again"] * bool(failed)
        return "\n".join(lines)

    def require_downloaded(self, products: Path, max_lost_share: float) -> None:
        """Raise InvalidInputError if more than a share of the URLs gave no image. Call it when all else is written.

        Args:
            products: the table, for the message.
            max_lost_share: the largest share that may fail, in [0, 1].
        """
        failed = sum(self.failed.values())
        total = self.downloaded + self.unchanged + self.present + failed
        if failed > max_lost_share * total:
            reason = next(iter(self.failed))
            raise InvalidInputError(
                f"{products}: {failed:,} of {total:,} image URLs ({failed / total:.0%}; {reason}, such as "
                f"{self.examples[reason]}) gave no image, more than {max_lost_share:.0%}; the rest is written; run "
                f"this again, or accept the loss with --max-lost-share {math.ceil(failed / total * 100) / 100:g}"
            )


@dataclass(frozen=True)
class _Request:
    known: KnownUrl
    """The URL of the table and, if an image of it is here, what the server said of that."""
    url: str
    """The URL to ask, after redirects."""
    redirects: int = 0
    failures: int = 0


@dataclass(frozen=True)
class _Outcome:
    known: KnownUrl
    """What to record; the key is set by the writer."""
    content: bytes | None = None


def download_images(
    products: Path,
    output: Path,
    now: datetime,
    options: DownloadOptions,
    *,
    revalidate: bool = False,
    progress: Callable[[int], None] = lambda urls: None,
    table_format: TableFormat = DEFAULT_FORMAT,
    folder: PictureFolder | None = None,
) -> DownloadSummary:
    """Download the images of a table, and note each URL in `output`/downloads.sqlite.

    Images and notes are written in small commits, so a run that is killed loses little and the next one continues.
    Nothing of a URL raises an error: it is counted by reason. `pack_images` then writes the table.

    Args:
        products: Parquet or CSV with the columns of schema.PRODUCTS. If `image` holds bytes, nothing is downloaded.
        output: the folder to write, which is created if missing.
        now: the time to note.
        options: how hosts are asked.
        revalidate: ask also for images that are here; a server that knows them answers without the image.
        progress: called with the number of URLs that are done.
        table_format: what the user says about the table.
        folder: where the images are kept; None takes the LMDB `output`/pictures.

    Raises:
        NotFoundError: `products` does not exist.
        InvalidInputError: the table cannot be read or lacks a column.
        UnavailableError: the LMDB or the bucket cannot be written.
        CorruptDataError: the log or the LMDB is damaged.
    """
    folder = folder or LmdbFolder(output / IMAGES_FOLDER)
    queues: HostQueues[_Request] = HostQueues(options.per_host, options.delay_seconds)
    outcomes: queue.Queue[_Outcome] = queue.Queue(COMMIT_IMAGES)
    client = fetch.make_client(options.limits)
    for _ in range(options.workers):
        threading.Thread(target=_work, args=(queues, outcomes, client, options), daemon=True).start()
    counts, failed, examples = Counter[str](), Counter[str](), dict[str, str]()
    pending, batch = 0, list[_Outcome]()
    with download_log.open_log(output) as log:
        requests = _list_requests(products, folder, log, counts, revalidate=revalidate, table_format=table_format)
        try:
            while True:
                for request in itertools.islice(requests, MAX_PENDING - pending):
                    pending += 1
                    for outcome in _enqueue(queues, request):
                        pending -= 1
                        batch.append(outcome)
                if not pending and not batch:
                    break
                if pending:
                    batch.append(outcomes.get())
                    pending -= 1
                if not pending or len(batch) >= COMMIT_IMAGES or _count_bytes(batch) >= COMMIT_BYTES:
                    _write(batch, folder, log, now)
                    for outcome in batch:
                        error = outcome.known.error
                        if error is None:
                            counts["unchanged" if outcome.content is None else "downloaded"] += 1
                        else:
                            failed[error] += 1
                            examples.setdefault(error, outcome.known.url.partition("?")[0])
                    batch = []
                progress(counts.total() + failed.total() + len(batch))
        finally:
            queues.close()
            _write(batch, folder, log, now)  # what came before an interruption
    return DownloadSummary(
        counts["downloaded"], counts["unchanged"], counts["present"], dict(failed.most_common()), examples
    )


def _list_requests(
    products: Path,
    folder: PictureFolder,
    log: DownloadLog,
    counts: Counter[str],
    *,
    revalidate: bool,
    table_format: TableFormat,
) -> Iterator[_Request]:
    """Yield a request for each distinct URL that is to be asked for; count those that are not as `present`."""
    seen: set[bytes] = set()
    for block in input_files.read_blocks(products, BLOCK_ROWS, ["image"], table_format=table_format):
        validation.require_columns(block, ["image"], products)
        urls = []
        for url in list_urls(block, products):
            digest = content_hash(url.encode())
            if digest not in seen:
                seen.add(digest)
                urls.append(url)
        known = log.read(urls)
        keys = [row.key for row in known.values() if row.key is not None]
        stored = folder.list_stored(keys)
        for url in urls:
            row = known.get(url, KnownUrl(url))
            if row.key not in stored:
                yield _Request(KnownUrl(url), url)
            elif revalidate or row.error is not None:
                yield _Request(row, url)
            else:
                counts["present"] += 1


def list_urls(block: pa.Table, file: Path) -> list[str]:
    """Return the URLs in the column `image` of rows, in their order, with repeats; none if the column holds bytes."""
    block, _ = validation.null_invalid_utf8(block, ["image"])
    masks = [check.bad for check in validate.resolve_images(block, file)[2] if check.reason == validate.IMAGE_IS_URL]
    return validation.parse_text(block, "image", file).filter(pa.array(masks[0])).to_pylist() if masks else []


def _enqueue(queues: HostQueues[_Request], request: _Request, *, after_seconds: float = 0.0) -> list[_Outcome]:
    """Put a request into the queue of its host; return its failure if that is not possible."""
    try:
        is_queued = queues.put(fetch.parse_host(request.url), request, after_seconds=after_seconds)
    except FetchError as error:
        return [_fail(request, error.reason)]
    return [] if is_queued else [_fail(request, ASKED_TO_WAIT)]


def _work(
    queues: HostQueues[_Request],
    outcomes: "queue.Queue[_Outcome]",
    client: urllib3.PoolManager,
    options: DownloadOptions,
) -> None:
    """Ask for one URL after the other until the queues are closed."""
    while (taken := queues.take()) is not None:
        host, request = taken
        try:
            done = _ask(queues, client, host, request, options)
        except Exception as error:  # one odd answer must not end the thread, nor the run
            done = [_fail(request, f"{fetch.INTERRUPTED} ({type(error).__name__})")]
        finally:
            queues.finish(host)
        for outcome in done:
            outcomes.put(outcome)


def _ask(
    queues: HostQueues[_Request], client: urllib3.PoolManager, host: str, request: _Request, options: DownloadOptions
) -> list[_Outcome]:
    """Ask for a URL once, and return the requests that have ended: none if it is to be asked again or elsewhere."""
    known = request.known
    try:
        image = fetch.fetch_image(
            client, request.url, options.limits, etag=known.etag, last_modified=known.last_modified
        )
    except FetchError as error:
        wait = error.retry_after_seconds or 0.0
        if wait > options.max_wait_seconds:
            return [_fail(one, ASKED_TO_WAIT) for one in (request, *queues.drop(host))]
        if not error.is_temporary or request.failures + 1 >= options.attempts:
            return [_fail(request, error.reason)]
        if wait:
            queues.pause(host, wait)
        backoff = options.backoff_seconds * 2**request.failures
        return _enqueue(queues, replace(request, failures=request.failures + 1), after_seconds=max(wait, backoff))
    if image.moved_to is None:
        etag, last_modified = image.etag or known.etag, image.last_modified or known.last_modified
        if image.content is not None:
            etag, last_modified = image.etag, image.last_modified
        return [_Outcome(KnownUrl(known.url, known.key, etag, last_modified), image.content)]
    if request.redirects == MAX_REDIRECTS:
        return [_fail(request, TOO_MANY_REDIRECTS)]
    return _enqueue(queues, replace(request, url=image.moved_to, redirects=request.redirects + 1))


def _fail(request: _Request, reason: str) -> _Outcome:
    return _Outcome(KnownUrl(request.known.url, error=reason))


def _count_bytes(batch: list[_Outcome]) -> int:
    return sum(len(outcome.content or b"") for outcome in batch)


def _write(batch: list[_Outcome], folder: PictureFolder, log: DownloadLog, now: datetime) -> None:
    """Write the images of outcomes, then note the outcomes: an image that is noted is there."""
    if not batch:
        return
    images = [outcome for outcome in batch if outcome.content is not None]
    contents = [one.content for one in images if one.content is not None]
    keys = folder.write(contents) if contents else []
    written = [replace(one.known, key=key) for one, key in zip(images, keys, strict=True)]
    log.record([*written, *(one.known for one in batch if one.content is None)], now)
