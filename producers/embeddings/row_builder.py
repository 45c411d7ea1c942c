"""Build embedding rows of a chunk of catalogue rows, from vectors that were just encoded and vectors of the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.location import BucketPath
from producers.catalogue import image_hashes, row_hash
from producers.catalogue.row_hash import RowHashes
from producers.embeddings import existing_rows
from producers.embeddings.tower_outputs import TowerOutputs
from producers.embeddings.vector_cache import IMAGE, TITLE, VectorCache, Vectors
from producers.encoders.encoder import Encoder, Outputs
from producers.encoders.pipeline import NO_VECTOR, EncodedChunk, Unusable, build_embedding_rows

UNIT_LENGTH_TOLERANCE = 1e-3
"""How far the length of a vector may be from 1."""


@dataclass(frozen=True)
class Modality:
    """One of the two contents of a product that have a vector: its image or its title."""

    column: str
    """Column of the catalogue. Other columns have names made of it: `{column}_hash` and `is_{column}_encoded`."""
    vectors: str
    """Attribute of `EncodedChunk` with the vectors."""
    outputs: str
    """Attribute of `EncodedChunk` with the outputs of the tower."""
    cache_key: bytes
    """IMAGE or TITLE, which the methods of `VectorCache` take as `modality`."""
    can_change: bool
    """Whether a content may change after it was hashed, because it lies in a file."""


MODALITIES = (
    Modality("image", "image", "image_outputs", IMAGE, can_change=True),
    Modality("title", "text", "text_outputs", TITLE, can_change=False),
)


@dataclass(frozen=True)
class BuiltRows:
    """What is to be committed of a chunk of catalogue rows."""

    rows: pa.Table
    """Rows of schema.PRODUCT_EMBEDDING, in the order of the chunk; without rows that have no vector or are deferred."""
    unusable: tuple[Unusable, ...]
    """First the images without a vector, then such titles, then the products that have neither vector."""
    new_vectors: tuple[tuple[bytes, Sequence[bytes], Vectors], ...]
    """One entry for images, one for titles: IMAGE or TITLE, then hashes [m] and vectors [m, dim] of contents that were
    encoded and are not in the cache yet; m may be 0."""
    new_outputs: tuple[tuple[bytes, Sequence[bytes], Outputs], ...]
    """The same with the outputs of towers, float16 [m, width]; an entry only where the encoder has such outputs."""
    without_vector: RowHashes
    """`existing_rows.hash_versions` of the rows of the chunk that have no vector, uint64 [k, 2]."""
    counts: dict[str, int]
    """For the run log: `pictures` and `titles` that the encoder gave a vector, and `reused`, the images and titles
    whose vector came from the cache or from an earlier row. All keys are always there."""


@dataclass(frozen=True)
class _Contents:
    """The images, or the titles, of a chunk of n rows."""

    vectors: Vectors
    """[n, dim], NaN where there is none."""
    unusable: tuple[Unusable, ...]
    """Why contents have no vector."""
    new_vectors: tuple[bytes, Sequence[bytes], Vectors]
    """An entry of `BuiltRows.new_vectors`."""
    new_outputs: tuple[bytes, Sequence[bytes], Outputs] | None
    """An entry of `BuiltRows.new_outputs`; None if the encoder has no such outputs."""
    is_deferred: NDArray[np.bool_]
    """[n]"""
    encoded: int
    """Rows that the encoder gave a vector."""
    reused: int
    """Rows whose vector came from the cache or from an earlier row."""


class RowBuilder:
    """Builds the embedding rows of one pass over the catalogue, chunk by chunk in order.

    An image or a title that several rows share is encoded for the first of them only. If it gave no vector, the other
    rows get the same reason. If the file of that first row has changed since it was hashed, or is gone, it says nothing
    about the others, which may name another file: they are deferred. Another pass has to encode each of them by itself.
    """

    def __init__(
        self,
        encoder: Encoder,
        cache: VectorCache,
        now: datetime,
        outputs: TowerOutputs | None = None,
        pictures: BucketPath | None = None,
    ) -> None:
        """Set up a pass.

        Args:
            encoder: the encoder that makes the vectors; this class only reads its properties.
            cache: cache of that encoder's vectors.
            now: the created timestamp of the rows, with a time zone.
            outputs: where the outputs of the encoder's towers are kept; None keeps none.
            pictures: prefix of the bucket whose objects `image` may name; None if it names none.
        """
        self.deferred = 0
        """Number of rows so far that another pass has to build."""
        self.changed_images: set[bytes] = set()
        """Hashes of the encoded images so far whose file is not the one that was hashed any more."""
        self._encoder = encoder
        self._cache = cache
        self._now = now
        self._outputs = outputs
        self._pictures = pictures
        self._unusable: dict[tuple[Modality, bytes], Unusable] = {}

    def build(self, chunk: pa.Table, encoded: EncodedChunk | None) -> BuiltRows:
        """Build the rows of a chunk. Writes nothing, not even to the cache.

        Args:
            chunk: n catalogue rows with product_id, event_timestamp, `image`, `image_hash`, `image_stat` and
                `title_hash`. If some were encoded, it also has the bool columns `is_image_encoded` and
                `is_title_encoded`.
            encoded: the vectors of the rows for which either of these is true, in their order; None if there are none.
                A vector whose length is not 1 within UNIT_LENGTH_TOLERANCE counts as missing.

        Returns:
            The rows, and what goes to the cache, the quarantine and the run log.
        """
        if not self._encoder.has_images:
            index = chunk.schema.get_field_index("image_hash")
            chunk = chunk.set_column(index, "image_hash", pa.nulls(len(chunk), row_hash.HASH_TYPE))
        flags = [_read_flags(chunk, f"is_{modality.column}_encoded") for modality in MODALITIES]
        in_encoded = flags[0] | flags[1]
        contents = [
            self._find_vectors(chunk, encoded, modality, is_encoded, in_encoded)
            for modality, is_encoded in zip(MODALITIES, flags, strict=True)
        ]
        image, title = contents
        is_deferred = image.is_deferred | title.is_deferred
        self.deferred += int(is_deferred.sum())
        is_empty = np.isnan(image.vectors[:, 0]) & np.isnan(title.vectors[:, 0]) & ~is_deferred
        empty = chunk.filter(pa.array(is_empty))
        ready = EncodedChunk(
            chunk.filter(pa.array(~is_deferred)),
            image.vectors[~is_deferred],
            title.vectors[~is_deferred],
            (*image.unusable, *title.unusable),
        )
        embedding = build_embedding_rows(ready, self._encoder, self._now)
        return BuiltRows(
            embedding.rows,
            embedding.unusable,
            tuple(one.new_vectors for one in contents),
            tuple(one.new_outputs for one in contents if one.new_outputs is not None),
            existing_rows.hash_versions(existing_rows.hash_keys(empty), existing_rows.hash_contents(empty)),
            {"pictures": image.encoded, "titles": title.encoded, "reused": image.reused + title.reused},
        )

    def _find_vectors(
        self,
        chunk: pa.Table,
        encoded: EncodedChunk | None,
        modality: Modality,
        is_encoded: NDArray[np.bool_],
        in_encoded: NDArray[np.bool_],
    ) -> _Contents:
        """Return the vectors of one of the two contents of a chunk.

        Args:
            chunk: n catalogue rows.
            encoded: what the encoder gave for some of them; None for none.
            modality: which of the two contents.
            is_encoded: whether that content of a row was passed to the encoder [n].
            in_encoded: whether the row is in `encoded` [n].
        """
        hashes = chunk[f"{modality.column}_hash"].to_pylist()
        is_hashed = chunk[f"{modality.column}_hash"].is_valid().to_numpy()
        vectors = self._cache.get(
            modality.cache_key, [None if flag else hash_ for flag, hash_ in zip(is_encoded, hashes, strict=True)]
        )
        reused = int((~np.isnan(vectors[:, 0])).sum())
        is_as_hashed, unusable = np.ones(len(chunk), bool), list[Unusable]()
        if encoded is not None and is_encoded.any():
            vectors[is_encoded] = _without_bad_lengths(getattr(encoded, modality.vectors))[is_encoded[in_encoded]]
            if modality.can_change:
                is_as_hashed = _find_unchanged(chunk, is_encoded, self._pictures)
                self.changed_images |= {hashes[row] for row in np.flatnonzero(is_hashed & is_encoded & ~is_as_hashed)}
            unusable = self._collect_unusable(chunk, encoded, modality, is_encoded, vectors, is_as_hashed)
        has_vector = ~np.isnan(vectors[:, 0])
        new = np.flatnonzero(is_encoded & has_vector & is_hashed & is_as_hashed)
        new_hashes = [hashes[row] for row in new]
        new_vectors = vectors[new]
        outputs = getattr(encoded, modality.outputs, None)
        if outputs is not None:
            position = np.cumsum(in_encoded) - 1  # of a row of the chunk among those that were encoded
            outputs = outputs[position[new]]
        is_deferred, row_of_hash = np.zeros(len(chunk), bool), dict(zip(new_hashes, new.tolist(), strict=True))
        for row in np.flatnonzero(~is_encoded & ~has_vector & is_hashed).tolist():
            if hashes[row] in row_of_hash:
                vectors[row] = vectors[row_of_hash[hashes[row]]]
                reused += 1
            elif (modality, hashes[row]) in self._unusable:
                first = self._unusable[modality, hashes[row]]
                unusable.append(Unusable(_product_id(chunk, row), first.column, first.reason, first.value))
            else:
                is_deferred[row] = True
        return _Contents(
            vectors,
            tuple(unusable),
            (modality.cache_key, new_hashes, new_vectors),
            None if outputs is None else (modality.cache_key, new_hashes, outputs),
            is_deferred,
            int((is_encoded & has_vector).sum()),
            reused,
        )

    def cache_vectors(self, built: BuiltRows) -> None:
        """Put the new vectors of a chunk into the cache; they are on disk when this returns.

        A content that has a vector in the cache already keeps it.

        Call it before the rows of the chunk are committed, so that a killed run encodes nothing twice.

        Args:
            built: from `build`.
        """
        for modality, hashes, outputs in built.new_outputs if self._outputs else ():
            if hashes and self._outputs:
                self._outputs.put(modality, hashes, outputs)
        for modality, hashes, vectors in built.new_vectors:
            if hashes:
                self._cache.put(modality, hashes, vectors)

    def _collect_unusable(
        self,
        chunk: pa.Table,
        encoded: EncodedChunk,
        modality: Modality,
        is_encoded: NDArray[np.bool_],
        vectors: Vectors,
        is_as_hashed: NDArray[np.bool_],
    ) -> list[Unusable]:
        """Return why rows that were encoded have no vector, and remember it for other rows of the same content.

        Args:
            chunk: n catalogue rows.
            encoded: what the encoder gave for some of them.
            modality: which of the two contents to look at.
            is_encoded: whether that content of a row was passed to the encoder [n].
            vectors: vectors of that content [n, dim], NaN where there is none.
            is_as_hashed: whether that content of an encoded row is still the one that was hashed [n].
        """
        name = modality.column
        known = {unusable.product_id: unusable for unusable in encoded.unusable if unusable.column == name}
        hashes, result = chunk[f"{name}_hash"], []
        for row in np.flatnonzero(is_encoded & np.isnan(vectors[:, 0])).tolist():
            product_id = _product_id(chunk, row)
            result.append(known.get(product_id, Unusable(product_id, name, NO_VECTOR, None)))
            if hashes[row].is_valid and is_as_hashed[row]:
                self._unusable[modality, hashes[row].as_py()] = result[-1]
        return result


def _without_bad_lengths(vectors: Vectors) -> Vectors:
    """Return the vectors, NaN where the length is not 1 within UNIT_LENGTH_TOLERANCE."""
    has_unit_length = np.abs(np.linalg.norm(vectors, axis=1) - 1) <= UNIT_LENGTH_TOLERANCE
    return np.where(has_unit_length[:, None], vectors, np.float32(np.nan))


def _find_unchanged(chunk: pa.Table, is_encoded: NDArray[np.bool_], pictures: BucketPath | None) -> NDArray[np.bool_]:
    """Return which rows' image files are still those that were hashed, bool [n]; True for images that lie in no file.

    Only files of rows in `is_encoded` are looked at; another row with a file may be False.
    """
    paths, has_stat = chunk["image"].to_pylist(), chunk["image_stat"].is_valid().to_numpy()
    stats = image_hashes.read_stats(
        [path if flag else None for flag, path in zip(is_encoded, paths, strict=True)], pictures
    )
    digests = row_hash.hash_texts(pa.chunked_array([pa.array(stats, pa.string())]))
    return ~has_stat | (digests == row_hash.from_arrow(chunk["image_stat"])).all(axis=1)


def _read_flags(chunk: pa.Table, name: str) -> NDArray[np.bool_]:
    """Return a bool column [n]; False throughout if the chunk lacks it."""
    return chunk[name].to_numpy() if name in chunk.column_names else np.zeros(len(chunk), bool)


def _product_id(chunk: pa.Table, row: int) -> str:
    return chunk[schema.PRODUCT_ID][row].as_py()
