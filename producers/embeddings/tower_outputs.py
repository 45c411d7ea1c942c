"""Vectors made of kept outputs of towers, without a tower call: for new heads, another whitening or alignment.

Before a run plans what to encode, the contents whose outputs are kept get their vectors in the cache. The plan then
finds them there, and neither decodes their images nor calls a tower.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo.arrow import take
from producers.catalogue import row_hash
from producers.embeddings.output_store import FOLDER, OutputStore, open_outputs
from producers.embeddings.vector_cache import FOLDER as CACHE_FOLDER
from producers.embeddings.vector_cache import IMAGE, TITLE, VectorCache, open_cache
from producers.encoders.encoder import Encoder, Outputs, TowerEncoder

ROWS_PER_BATCH = 4096
"""Catalogue rows whose outputs are in memory at once."""

MakeVectors = Callable[[bytes, Sequence[bytes], Sequence[str]], NDArray[np.float32]]
"""Returns the vectors [n, dim] of contents, NaN where it has none, for IMAGE or TITLE, content hashes [n], and the
titles of the same rows [n]."""


@dataclass(frozen=True)
class TowerOutputs:
    """The kept outputs of the towers of one encoder."""

    store: OutputStore
    encoder: TowerEncoder

    def put(self, modality: bytes, hashes: Sequence[bytes], outputs: Outputs) -> None:
        """Append outputs float16 [n, width] of contents; they are on disk when this returns.

        Args:
            modality: IMAGE or TITLE.
            hashes: content hashes of 16 bytes [n].
            outputs: rows that are not finite are left out.
        """
        fingerprint = self._fingerprint(modality)
        if fingerprint:
            self.store.put(modality, fingerprint, hashes, outputs)

    def get(self, modality: bytes, hashes: Sequence[bytes | None]) -> Outputs:
        """Return outputs float16 [n, width] in the order of the hashes; NaN where one is None or none is kept."""
        width = self.encoder.image_width if modality == IMAGE else self.encoder.text_width
        return self.store.get(modality, self._fingerprint(modality) or "", hashes, width)

    def has(self, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return whether `project` has a vector for each content, bool [n]; False for None."""
        fingerprint = self._fingerprint(modality)
        if fingerprint is None:
            return np.array([hash_ is not None for hash_ in hashes], bool)
        return self.store.has(modality, fingerprint, hashes)

    def project(self, modality: bytes, hashes: Sequence[bytes], titles: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors float32 [n, dim] of contents whose outputs are kept, in their order; NaN for the others.

        Args:
            modality: IMAGE or TITLE.
            hashes: content hashes of 16 bytes [n]; may be empty.
            titles: the titles of the rows [n]; only those of TITLE are read.
        """
        if modality == TITLE and self.encoder.text_fingerprint is None:
            return self.encoder.project_texts(titles, np.empty((len(hashes), 0), np.float16))
        kept = self.get(modality, hashes)
        rows = np.flatnonzero(~np.isnan(kept).any(axis=1))
        made = (
            self.encoder.project_images(kept[rows])
            if modality == IMAGE
            else self.encoder.project_texts([titles[row] for row in rows.tolist()], kept[rows])
        )
        vectors = np.full((len(hashes), made.shape[1]), np.nan, np.float32)
        vectors[rows] = made
        return vectors

    def _fingerprint(self, modality: bytes) -> str | None:
        return self.encoder.image_fingerprint if modality == IMAGE else self.encoder.text_fingerprint


@contextmanager
def open_caches(folder: Path, encoder: Encoder) -> Iterator[tuple[VectorCache, TowerOutputs | None]]:
    """Open the cache of an encoder's vectors, and the kept outputs of its towers.

    The latter is None for an encoder whose towers cannot be called alone.

    Args:
        folder: folder of the Delta tables, in which both are kept.
        encoder: any encoder.
    """
    with open_cache(folder / CACHE_FOLDER, encoder.version, encoder.dim) as cache:
        if not isinstance(encoder, TowerEncoder):
            yield cache, None
            return
        with open_outputs(folder / FOLDER) as store:
            yield cache, TowerOutputs(store, encoder)


def cache_kept_outputs(rows: pyarrow.dataset.Dataset, cache: VectorCache, outputs: TowerOutputs | None) -> int:
    """Make vectors of the kept outputs of catalogue rows and put them into the cache; return their number.

    Contents that have a vector already, or no kept output, are passed over. Of an encoder without a text tower every
    title gets its vector, which needs its words only.

    Args:
        rows: catalogue rows with `title` and `image_hash`.
        cache: of an encoder's vectors.
        outputs: of that encoder's towers; None does nothing.
    """
    return 0 if outputs is None else fill_cache(rows, cache, outputs.project)


def fill_cache(rows: pyarrow.dataset.Dataset, cache: VectorCache, make_vectors: MakeVectors) -> int:
    """Put the vectors of the contents of catalogue rows that can be made without the encoder into the cache.

    Args:
        rows: catalogue rows with `title` and `image_hash`.
        cache: of an encoder's vectors; contents that it has are passed over.
        make_vectors: makes the vectors of the others.

    Returns:
        The number of vectors made.
    """
    made = 0
    for batch in take.scan(rows, ["title", "image_hash"], batch_rows=ROWS_PER_BATCH).to_batches():
        titles = batch["title"].to_pylist()
        title_hashes = row_hash.hash_contents(pyarrow.chunked_array([batch["title"]])).to_pylist()
        for modality, hashes in ((IMAGE, batch["image_hash"].to_pylist()), (TITLE, title_hashes)):
            missing = _find_missing(cache, modality, hashes)
            own = [hashes[row] for row in missing]
            made += _put(cache, modality, own, make_vectors(modality, own, [titles[row] for row in missing]))
    return made


def _find_missing(cache: VectorCache, modality: bytes, hashes: Sequence[bytes | None]) -> NDArray[np.int64]:
    """Return the first row of each hash that is not None and has no vector in the cache, ascending."""
    is_valid = np.array([hash_ is not None for hash_ in hashes], bool)
    first = {hash_: row for row, hash_ in reversed(list(enumerate(hashes)))}
    is_first = np.array([first[hash_] == row for row, hash_ in enumerate(hashes)], bool)
    return np.flatnonzero(is_valid & is_first & ~cache.has(modality, hashes))


def _put(cache: VectorCache, modality: bytes, hashes: list[bytes], vectors: NDArray[np.float32]) -> int:
    """Put the vectors that are finite into the cache, and return their number."""
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    cache.put(modality, [hashes[row] for row in usable], vectors[usable])
    return len(usable)
