"""Plan what to encode: catalogue versions that have no row of this encoder, and the contents they need.

An encoder that has encoded a whole version of the catalogue stores that version's number as a marker on its own table,
together with its rows. The next plan reads only catalogue rows that were added since. Of the existing embedding rows it
reads keys and hashes, and by Delta's statistics only of files whose event times can match. So a run without new rows
reads nothing, and any other run reads as much as was added. Rows of other encoders do not count.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, TIMESTAMP
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes
from producers.embeddings import existing_rows
from producers.embeddings.existing_rows import KEY, RowIndices
from producers.embeddings.vector_cache import IMAGE, TITLE


class KnownContents(Protocol):
    """Says which contents have a vector, or get one without the encoder; a `VectorCache` is one."""

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether each content hash is known, bool [n]; False for None. `modality` is IMAGE or TITLE."""


HASHES_PER_LOOKUP = 65_536
"""Hashes that are Python objects at a time."""
NO_ROWS: RowHashes = np.empty((0, 2), np.uint64)
NOTHING_ENCODED = -1
"""Value of the marker of an encoder whose rows have been deleted."""


@dataclass(frozen=True)
class CatalogueChanges:
    """A version of the catalogue table, and what is new in it for an encoder."""

    version: int
    """Number of the version of the catalogue table."""
    markers: dict[str, int]
    """Name of the marker with its number, to be stored on the table of embeddings when everything is encoded."""
    new: pyarrow.dataset.Dataset
    """Every catalogue row that no finished run has seen, possibly among others."""
    rows: int
    """Number of rows of the whole catalogue."""


@dataclass(frozen=True)
class EncodingPlan:
    """Rows of `CatalogueChanges.new` that need an embedding row, as ascending row numbers from 0."""

    reused: RowIndices
    """Rows whose image and title, as far as they have them, have a vector in the cache; also rows with neither."""
    encoded: RowIndices
    """The other rows that need an embedding row."""
    is_image_encoded: NDArray[np.bool_]
    """For each row of `encoded`, whether its image is passed to the encoder [encoded]. It is for the first row of each
    image that is not in the cache, and for every row whose image has no hash, or one of `changed_images`."""
    is_title_encoded: NDArray[np.bool_]
    """For each row of `encoded`, whether its title is passed to the encoder [encoded]: the first row of each title that
    is not in the cache."""


def read_changes(settings: Settings, encoder_version: str) -> CatalogueChanges | None:
    """Return what is new in the catalogue for an encoder.

    Args:
        settings: the deployment.
        encoder_version: the encoder, as `name@fingerprint`.

    Returns:
        What is new. None if a run of this encoder has finished this version of the catalogue. All of the catalogue is
        new if no run of this encoder has finished.

    Raises:
        NotFoundError: there is no catalogue.
    """
    path = settings.table(schema.CATALOGUE_TABLE)
    catalogue = delta.open_dataset(path)
    table, embeddings = delta.open_table(path), settings.table(schema.EMBEDDING_TABLE)
    catalogue_marker = _catalogue_marker(table.metadata().id, encoder_version)
    markers = {catalogue_marker: table.version()}
    finished = delta.txn_marker(embeddings, catalogue_marker)
    if finished == NOTHING_ENCODED:
        finished = None
    if finished == table.version():
        return None
    return CatalogueChanges(
        table.version(), markers, delta.open_added_rows(path, table, finished), catalogue.count_rows()
    )


def forget_encoder(settings: Settings, encoder_version: str) -> None:
    """Forget that an encoder has encoded the catalogue, after its rows have been deleted.

    Raises:
        ConflictError: a run of this encoder has committed meanwhile.
        UnavailableError: the commit cannot be written.
    """
    catalogue, path = settings.table(schema.CATALOGUE_TABLE), settings.table(schema.EMBEDDING_TABLE)
    if not delta.exists(catalogue) or not delta.exists(path):
        return
    app_id = existing_rows.txn_app_id(encoder_version)
    marker = _catalogue_marker(delta.open_table(catalogue).metadata().id, encoder_version)
    empty = schema.PRODUCT_EMBEDDING.empty_table()
    delta.append_if_version(path, empty, app_id, delta.txn_version(path, app_id), {marker: NOTHING_ENCODED})


def _catalogue_marker(table_id: object, encoder_version: str) -> str:
    return f"{schema.CATALOGUE_TABLE} {table_id} encoded by {encoder_version}"


def plan_encoding(
    settings: Settings,
    new: pyarrow.dataset.Dataset,
    encoder_version: str,
    cache: KnownContents,
    *,
    has_images: bool,
    changed_images: Collection[bytes] = (),
    without_vector: RowHashes = NO_ROWS,
) -> EncodingPlan:
    """Decide which catalogue rows need an embedding row, and which of their contents have to be encoded.

    Of several rows of one product and event time, only the one created last counts. It needs an embedding row unless
    the last created one of this encoder for that product and time has the same image and title.

    Args:
        settings: the deployment.
        new: catalogue rows, from `read_changes`; may be empty.
        encoder_version: the encoder, as `name@fingerprint`.
        cache: of that encoder's vectors, or what will be in it; nothing is written to it.
        has_images: whether the encoder has an image tower; if not, images are ignored.
        changed_images: hashes of images that a file lost after it was hashed: each row with one of them is encoded.
        without_vector: `existing_rows.hash_versions` [k, 2] of rows that turned out to have no vector; they are left
            out.

    Returns:
        The rows that need an embedding row, all others left out.
    """
    rows = _read_rows(new, has_images)
    latest = existing_rows.find_latest_keys(rows.keys, rows.created_us)
    _, is_done = existing_rows.find_existing_keys(
        settings, rows.keys[latest], rows.contents[latest], encoder_version, rows.event_times
    )
    versions = existing_rows.hash_versions(rows.keys[latest], rows.contents[latest])
    is_done |= row_hash.find_positions(versions, without_vector[row_hash.sort_order(without_vector)]) >= 0
    needed = np.sort(latest[~is_done])

    title_hash, image_hash = (column.take(pa.array(needed)) for column in (rows.title_hash, rows.image_hash))
    new_title, new_image = _find_uncached(cache, TITLE, title_hash), _find_uncached(cache, IMAGE, image_hash)
    unhashed_image = rows.has_image[needed] & image_hash.is_null().to_numpy(zero_copy_only=False)
    encoded = new_title | new_image | unhashed_image
    is_title_encoded = new_title & _find_first(title_hash)
    has_changed = pc.is_in(image_hash, pa.array(changed_images, row_hash.HASH_TYPE)).to_numpy(zero_copy_only=False)
    is_image_encoded = (new_image & (_find_first(image_hash) | has_changed)) | unhashed_image
    return EncodingPlan(needed[~encoded], needed[encoded], is_image_encoded[encoded], is_title_encoded[encoded])


@dataclass(frozen=True)
class _RowDigests:
    """What is in memory of n catalogue rows, about 100 bytes a row: neither ids nor titles."""

    keys: RowHashes
    """[n, 2], of existing_rows.hash_keys."""
    created_us: NDArray[np.int64]
    """[n], microseconds since 1970 UTC."""
    contents: RowHashes
    """[n, 2], of existing_rows.hash_contents."""
    title_hash: pa.Array
    """[n], null without a title."""
    image_hash: pa.Array
    """[n], null without an image, without a hash of it, and for an encoder without an image tower."""
    has_image: NDArray[np.bool_]
    """[n], False for an encoder without an image tower."""
    event_times: pc.Expression
    """Filter that passes rows of the same event times, and of all between."""


def _read_rows(rows: pyarrow.dataset.Dataset, has_images: bool) -> _RowDigests:
    """Read the digests of catalogue rows, in the order of the rows."""
    columns = [*KEY, CREATED_TIMESTAMP, "title", "image", "image_hash"]
    none = np.empty((0, 2), np.uint64)
    parts: list[tuple[Any, ...]] = [(none, np.empty(0, np.int64), none, np.empty(0, bool))]
    hashes: list[tuple[pa.Array, pa.Array]] = [(pa.array([], row_hash.HASH_TYPE),) * 2]
    first, last = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    for batch in take.scan(rows, columns).to_batches():
        part = pa.Table.from_batches([batch])
        title_hash = row_hash.hash_contents(part["title"])
        image_hash = batch["image_hash"] if has_images else pa.nulls(len(part), row_hash.HASH_TYPE)
        hashed = part.select(KEY).append_column("image_hash", image_hash).append_column("title_hash", title_hash)
        event_us, created_us = (part[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
        has_image = part["image"].is_valid().to_numpy() & has_images
        parts.append((existing_rows.hash_keys(part), created_us, existing_rows.hash_contents(hashed), has_image))
        hashes.append((image_hash, title_hash))
        first, last = min(first, event_us.min(initial=first)), max(last, event_us.max(initial=last))
    keys, created, contents, images = (np.concatenate(one) for one in zip(*parts, strict=True))
    image_hash, title_hash = (pa.concat_arrays(one) for one in zip(*hashes, strict=True))
    event = pc.field(EVENT_TIMESTAMP)
    bounds = [pc.scalar(int(value)).cast(TIMESTAMP) for value in (first, last)]
    event_times = (event >= bounds[0]) & (event <= bounds[1])
    return _RowDigests(keys, created, contents, title_hash, image_hash, images, event_times)


def _find_uncached(cache: KnownContents, modality: bytes, hashes: pa.Array) -> NDArray[np.bool_]:
    """Return which hashes are not null and have no vector in the cache, bool [n]."""
    is_cached = np.zeros(len(hashes), bool)
    for start in range(0, len(hashes), HASHES_PER_LOOKUP):
        part = hashes.slice(start, HASHES_PER_LOOKUP)
        is_cached[start : start + len(part)] = cache.has(modality, part.to_pylist())
    return hashes.is_valid().to_numpy(zero_copy_only=False) & ~is_cached


def _find_first(hashes: pa.Array) -> NDArray[np.bool_]:
    """Return whether each row is the first with its hash, bool [n]; all nulls count as one hash."""
    values = row_hash.from_arrow(pa.chunked_array([hashes]))
    order = row_hash.sort_order(values, np.arange(len(values)))
    ends = row_hash.find_last_positions(values, order)
    is_first = np.zeros(len(values), bool)
    is_first[order[np.append(0, ends[:-1] + 1)] if len(ends) else order] = True
    return is_first
