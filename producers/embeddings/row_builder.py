"""Vectors of a chunk's pictures and titles, fresh from the encoder or encoded before, put together to rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from producers.catalogue import image_hashes, row_hash
from producers.embeddings.vector_cache import IMAGE, TITLE, VectorCache, Vectors
from producers.encoders.encoder import Encoder
from producers.encoders.pipeline import NO_VECTOR, NOTHING_USABLE, EncodedChunk, Unusable, build_embedding_rows

UNIT_LENGTH_TOLERANCE = 1e-3
"""How far from 1 the length of a vector may be, for it to be stored."""


@dataclass(frozen=True)
class Modality:
    """What a product is encoded by."""

    column: str
    """Of the catalogue, and before `_hash` and after `asks_`."""
    vector: str
    """Column of embedding rows."""
    kept_as: bytes
    """Its contents in the store."""
    counted: str
    in_files: bool
    """Whether contents may change after they were hashed."""


MODALITIES = (
    Modality("image", "image_vector", IMAGE, "pictures", in_files=True),
    Modality("title", "text_vector", TITLE, "titles", in_files=False),
)


@dataclass(frozen=True)
class BuiltRows:
    """What is to be written of a chunk."""

    rows: pa.Table
    """schema.PRODUCT_EMBEDDING"""
    unusable: tuple[Unusable, ...]
    fresh: tuple[tuple[bytes, Sequence[bytes], Vectors], ...]
    """Under which modality they are kept, hashes and vectors of contents that had not been encoded."""
    counts: dict[str, int]


class RowBuilder:
    """Puts chunks of one pass together, in their order.

    A content that came several times was encoded for the first of its rows. Where that gave no vector, the others are
    told the same reason; where its file has changed since it was hashed, they are `left` for another pass.
    """

    def __init__(self, encoder: Encoder, store: VectorCache, now: datetime) -> None:
        self.left = 0
        self._encoder = encoder
        self._store = store
        self._now = now
        self._bad: dict[tuple[Modality, bytes], Unusable] = {}

    def rows(self, chunk: pa.Table, made: EncodedChunk | None) -> BuiltRows:
        """Rows of a chunk.

        Args:
            chunk: catalogue rows with `image_hash`, `image_stat` and `title_hash`; `asks_image` and `asks_title` where
                some were encoded.
            made: what came of those.
        """
        if not self._encoder.has_images:
            place = chunk.schema.get_field_index("image_hash")
            chunk = chunk.set_column(place, "image_hash", pa.nulls(len(chunk), row_hash.HASH_TYPE))
        vectors: list[Vectors] = []
        unusable: list[Unusable] = []
        fresh, counts = [], {"pictures": 0, "titles": 0, "reused": 0}
        waits = np.zeros(len(chunk), bool)
        for modality in MODALITIES:
            asks = _mask(chunk, f"asks_{modality.column}")
            hashes = chunk[f"{modality.column}_hash"].to_pylist()
            unasked = [None if ask else hash_ for ask, hash_ in zip(asks, hashes, strict=True)]
            found = self._store.get(modality.kept_as, unasked)
            counts["reused"] += int((~np.isnan(found[:, 0])).sum())
            if made is not None and asks.any():
                found[asks] = self._encoded(chunk, made, modality)[asks]
                unusable += self._refused(chunk, made, modality, asks, found)
            hashed = chunk[f"{modality.column}_hash"].is_valid().to_numpy()
            there = ~np.isnan(found[:, 0])
            counts[modality.counted] += int((asks & there).sum())
            sure = asks & there & hashed & (_unmoved(chunk, asks) if modality.in_files else True)
            keep = np.flatnonzero(sure)
            fresh.append((modality.kept_as, [hashes[row] for row in keep], found[keep]))
            now_known = dict(zip(fresh[-1][1], keep.tolist(), strict=True))
            for row in np.flatnonzero(~asks & ~there & hashed).tolist():
                if hashes[row] in now_known:
                    found[row] = found[now_known[hashes[row]]]
                    counts["reused"] += 1
                elif (modality, hashes[row]) in self._bad:
                    said = self._bad[modality, hashes[row]]
                    unusable.append(Unusable(_product(chunk, row), said.column, said.reason, said.value))
                else:
                    waits[row] = True
            vectors.append(found)
        self.left += int(waits.sum())
        chunk, (image, title) = chunk.filter(pa.array(~waits)), (found[~waits] for found in vectors)
        nothing = np.flatnonzero(np.isnan(image[:, 0]) & np.isnan(title[:, 0]))
        unusable += [Unusable(_product(chunk, row), "image, title", NOTHING_USABLE, None) for row in nothing.tolist()]
        return BuiltRows(
            build_embedding_rows(chunk, image, title, self._encoder, self._now), tuple(unusable), tuple(fresh), counts
        )

    def keep(self, ready: BuiltRows) -> None:
        """Put the fresh vectors into the store."""
        for modality, hashes, vectors in ready.fresh:
            if hashes:
                self._store.put(modality, hashes, vectors)

    def _encoded(self, chunk: pa.Table, made: EncodedChunk, modality: Modality) -> Vectors:
        """[rows of the chunk, dim]; NaN where nothing, or no unit vector, was made."""
        keys, made_keys = _keys(chunk), _keys(made.rows)
        order = row_hash.sort_order(made_keys)
        place = row_hash.find_positions(keys, made_keys[order])
        came = to_matrix(made.rows[modality.vector], self._encoder.dim)
        found = np.full((len(chunk), self._encoder.dim), np.nan, np.float32)
        found[place >= 0] = came[order[place[place >= 0]]]
        off = ~(np.abs(np.linalg.norm(found, axis=1) - 1) <= UNIT_LENGTH_TOLERANCE)
        found[off] = np.nan
        return found

    def _refused(
        self, chunk: pa.Table, made: EncodedChunk, modality: Modality, asks: NDArray[np.bool_], found: Vectors
    ) -> list[Unusable]:
        """Why rows that were asked have no vector."""
        name = modality.column
        said = {unusable.product_id: unusable for unusable in made.unusable if unusable.column == name}
        hashes, refused = chunk[f"{name}_hash"], []
        for row in np.flatnonzero(asks & np.isnan(found[:, 0])).tolist():
            product = _product(chunk, row)
            refused.append(said.get(product, Unusable(product, name, NO_VECTOR, None)))
            if hashes[row].is_valid:
                self._bad[modality, hashes[row].as_py()] = refused[-1]
        return refused


def _unmoved(chunk: pa.Table, asks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[rows] whether the file of each picture that was encoded is still the one that was hashed."""
    paths, held = chunk["image"].to_pylist(), chunk["image_stat"].is_valid().to_numpy()
    now = [image_hashes.read_file_stat(path) if ask and path else None for ask, path in zip(asks, paths, strict=True)]
    same = row_hash.hash_texts(pa.chunked_array([pa.array(now, pa.string())])) == row_hash.from_arrow(
        chunk["image_stat"]
    )
    return ~held | same.all(axis=1)


def _mask(chunk: pa.Table, name: str) -> NDArray[np.bool_]:
    return chunk[name].to_numpy() if name in chunk.column_names else np.zeros(len(chunk), bool)


def _keys(rows: pa.Table) -> row_hash.RowHashes:
    event = rows[schema.EVENT_TIMESTAMP].cast(pa.int64()).to_numpy()
    return row_hash.combine_columns([row_hash.hash_texts(rows[schema.PRODUCT_ID]), row_hash.hash_numbers(event)])


def _product(chunk: pa.Table, row: int) -> str:
    return pc.take(chunk[schema.PRODUCT_ID], pa.array([row]))[0].as_py()
