"""What is to be encoded: the catalogue's versions whose row is not of this encoder yet, and of them which content.

Looked at are the versions that were written since this encoder last finished, whose number it leaves on its own table
with its rows; of the rows made, keys and hashes, and by Delta's own statistics only of the files whose event times can
match. So a run after which nothing came reads nothing, and any other as much as came. Where another encoder's rows
came since, the whole catalogue is looked at: what it has overtaken gets a later row of this encoder again.
"""

from dataclasses import dataclass

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
from producers.embeddings.vector_cache import IMAGE, TITLE, VectorCache


@dataclass(frozen=True)
class CatalogueChanges:
    """The state of the catalogue that is to be encoded, and what is new in it."""

    version: int
    marks: dict[str, int]
    """Left on the table of embeddings when all is encoded: this version, and of that table the one looked at."""
    new: pyarrow.dataset.Dataset
    """Every version of a product that no finished run has seen, among others."""
    rows: int
    """Of the whole catalogue."""


@dataclass(frozen=True)
class EncodingPlan:
    """Rows of `Since.new` that want a row of embeddings, by number, ascending."""

    reused: RowIndices
    """Both contents have been encoded before."""
    encoded: RowIndices
    """The others; aligned with it:"""
    asks_image: NDArray[np.bool_]
    asks_title: NDArray[np.bool_]
    """Whether this row is the first with a content that has not been encoded."""


def read_changes(settings: Settings, encoder_version: str) -> CatalogueChanges | None:
    """What is new in the catalogue for an encoder; None if it has finished with this very state.

    Raises:
        VitrineError: there is no catalogue.
    """
    path = settings.table(schema.CATALOGUE_TABLE)
    whole = delta.open_dataset(path)
    table, rows = delta.open_table(path), settings.table(schema.EMBEDDING_TABLE)
    mark = f"{schema.CATALOGUE_TABLE} {table.metadata().id} encoded by {encoder_version}"
    looked_at = f"{mark}, rows looked at"
    marks, made_before = {mark: table.version()}, delta.latest_version(rows)
    if made_before is not None:
        marks[looked_at] = made_before
    seen = delta.txn_marker(rows, mark)
    if seen is not None and existing_rows.has_newer_rows_of_others(
        settings, encoder_version, delta.txn_marker(rows, looked_at)
    ):
        seen = None
    if seen == table.version():
        return None
    return CatalogueChanges(table.version(), marks, delta.open_added_rows(path, table, seen), whole.count_rows())


def plan_encoding(
    settings: Settings, new: pyarrow.dataset.Dataset, encoder_version: str, contents: VectorCache, *, images: bool
) -> EncodingPlan:
    """Which of the new rows are to be encoded.

    Of a version that was corrected the last created counts. It has its row if the last created one with its key, of any
    encoder, is of this one and came of the same contents, or does not say of which: from a machine that only encodes,
    or before hashes were kept.

    Args:
        images: whether the encoder has an image tower; without one pictures are left alone.
    """
    rows = new.to_table(columns=[*KEY, CREATED_TIMESTAMP, "title", "image", "image_hash"])
    title_hash = row_hash.hash_contents(rows["title"])
    image_hash = rows["image_hash"].combine_chunks() if images else pa.nulls(len(rows), row_hash.HASH_TYPE)
    newest = existing_rows.find_latest(rows)
    hashed = rows.select(KEY).append_column("image_hash", image_hash).append_column("title_hash", title_hash)
    _, done = existing_rows.find_existing(settings, hashed.take(pa.array(newest)), encoder_version)
    todo = np.sort(newest[~done])

    title_hash, image_hash = (column.take(pa.array(todo)) for column in (title_hash, image_hash))
    asks_title, asks_image = _unknown(contents, TITLE, title_hash), _unknown(contents, IMAGE, image_hash)
    unhashed = images & rows["image"].is_valid().to_numpy()[todo] & image_hash.is_null().to_numpy(zero_copy_only=False)
    left = asks_title | asks_image | unhashed
    asks_title, asks_image = asks_title & _first(title_hash), (asks_image & _first(image_hash)) | unhashed
    return EncodingPlan(todo[~left], todo[left], asks_image[left], asks_title[left])


def _unknown(contents: VectorCache, modality: bytes, hashes: pa.Array) -> NDArray[np.bool_]:
    there = hashes.is_valid().to_numpy(zero_copy_only=False)
    return there & ~contents.has(modality, hashes.to_pylist())


def _first(hashes: pa.Array) -> NDArray[np.bool_]:
    """[n] whether the row is the first with its hash."""
    values = row_hash.from_arrow(pa.chunked_array([hashes]))
    order = row_hash.sort_order(values, np.arange(len(values)))
    ends = row_hash.find_last_positions(values, order)
    first = np.zeros(len(values), bool)
    first[order[np.append(0, ends[:-1] + 1)] if len(ends) else order] = True
    return first
