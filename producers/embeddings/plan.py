"""Plan what to encode: catalogue versions that have no row of this encoder, and the contents they need.

An encoder that has encoded a whole version of the catalogue stores that version's number as a marker on its own table,
together with its rows. The next plan reads only catalogue rows that were added since. Of the existing embedding rows it
reads keys and hashes, and by Delta's statistics only of files whose event times can match. So a run without new rows
reads nothing, and any other run reads as much as was added. Rows of other encoders do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP
from producers.catalogue import row_hash
from producers.embeddings import existing_rows
from producers.embeddings.existing_rows import KEY, RowIndices
from producers.embeddings.vector_cache import IMAGE, TITLE


class KnownContents(Protocol):
    """Says which contents have a vector, or get one without the encoder; a `VectorCache` is one."""

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether each content hash is known, bool [n]; False for None. `modality` is IMAGE or TITLE."""


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
    image that is not in the cache, and for every row whose image has no hash."""
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
    settings: Settings, new: pyarrow.dataset.Dataset, encoder_version: str, cache: KnownContents, *, has_images: bool
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

    Returns:
        The rows that need an embedding row, all others left out.
    """
    rows = new.to_table(columns=[*KEY, CREATED_TIMESTAMP, "title", "image", "image_hash"])
    title_hash = row_hash.hash_contents(rows["title"])
    image_hash = rows["image_hash"].combine_chunks() if has_images else pa.nulls(len(rows), row_hash.HASH_TYPE)
    latest = existing_rows.find_latest(rows)
    hashed = rows.select(KEY).append_column("image_hash", image_hash).append_column("title_hash", title_hash)
    _, is_done = existing_rows.find_existing(settings, hashed.take(pa.array(latest)), encoder_version)
    needed = np.sort(latest[~is_done])

    title_hash, image_hash = (column.take(pa.array(needed)) for column in (title_hash, image_hash))
    new_title, new_image = _find_uncached(cache, TITLE, title_hash), _find_uncached(cache, IMAGE, image_hash)
    is_unhashed = image_hash.is_null().to_numpy(zero_copy_only=False)
    unhashed_image = has_images & rows["image"].is_valid().to_numpy()[needed] & is_unhashed
    encoded = new_title | new_image | unhashed_image
    is_title_encoded = new_title & _find_first(title_hash)
    is_image_encoded = (new_image & _find_first(image_hash)) | unhashed_image
    return EncodingPlan(needed[~encoded], needed[encoded], is_image_encoded[encoded], is_title_encoded[encoded])


def _find_uncached(cache: KnownContents, modality: bytes, hashes: pa.Array) -> NDArray[np.bool_]:
    """Return which hashes are not null and have no vector in the cache, bool [n]."""
    is_valid = hashes.is_valid().to_numpy(zero_copy_only=False)
    return is_valid & ~cache.has(modality, hashes.to_pylist())


def _find_first(hashes: pa.Array) -> NDArray[np.bool_]:
    """Return whether each row is the first with its hash, bool [n]; all nulls count as one hash."""
    values = row_hash.from_arrow(pa.chunked_array([hashes]))
    order = row_hash.sort_order(values, np.arange(len(values)))
    ends = row_hash.find_last_positions(values, order)
    is_first = np.zeros(len(values), bool)
    is_first[order[np.append(0, ends[:-1] + 1)] if len(ends) else order] = True
    return is_first
