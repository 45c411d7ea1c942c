"""Which products are the same, which fit a sentence, and batches of them.

Who has labels of some pairs has none of most: a product that is near and not labelled may be the same one. Such a pair
does not count as different if its cosine in the encoder that is tuned is above GUARD times that of the labelled pairs
(NV-Retriever, Moreira et al. 2024, "TopK-PercPos").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Rows = NDArray[np.int64]
Bools = NDArray[np.bool_]
Vectors = NDArray[np.float32]

GUARD = 0.95
"""Share of the cosine of labelled pairs above which an unlabelled pair is neither the same nor different."""
HARD = 5
"""Nearest different products of a product that are in its batch."""
NEAREST = 50
"""Nearest products among which they are looked for."""
BLOCK = 1024
"""Products that are compared at once with all others."""


@dataclass(frozen=True)
class SameProducts:
    """What is known about n products: which are the same, and which are not."""

    groups: Rows
    """[n], equal for products that are the same."""
    is_complete: Bools
    """[n]; two products of different groups that are both complete are known to be different."""
    different: Rows
    """[pairs, 2], rows of the products of each pair that is labelled as different."""

    def select(self, rows: Rows) -> "SameProducts":
        """Return what is known about some products, each once."""
        position = np.full(len(self.groups), -1)
        position[rows] = np.arange(len(rows))
        pairs = position[self.different]
        return SameProducts(self.groups[rows], self.is_complete[rows], pairs[(pairs >= 0).all(axis=1)])

    def list_groups(self) -> list[Rows]:
        """Return the rows of each group of at least two products."""
        order = np.argsort(self.groups, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.groups[order])) + 1)
        return [part for part in parts if len(part) > 1]

    def compare(self, rows: Rows) -> tuple[Bools, Bools]:
        """Return which pairs of some products are the same, and which are known to be different, [rows, rows] each."""
        own = self.select(rows)
        is_same = own.groups[:, None] == own.groups[None, :]
        is_different = own.is_complete[:, None] & own.is_complete[None, :]
        left, right = own.different.T
        is_different[left, right] = is_different[right, left] = True
        return is_same, is_different & ~is_same


@dataclass(frozen=True)
class Sentences:
    """m sentences, and which of n products fit them."""

    texts: Sequence[str]
    fits: csr_array
    """[m, n], 1 where the product fits."""
    misfits: csr_array | None
    """[m, n], 1 where it was judged not to fit; None: every product that does not fit."""

    def select(self, rows: Rows) -> "Sentences":
        """Return the same sentences about some of the products."""
        return Sentences(self.texts, self.fits[:, rows], None if self.misfits is None else self.misfits[:, rows])


def find_guards(vectors: Vectors, groups: Sequence[Rows]) -> Vectors:
    """Return the cosine above which an unlabelled pair of a product does not count as different, float32 [n].

    It is GUARD times the mean cosine of the product's own pairs; of a product without a pair, that of all pairs.

    Args:
        vectors: unit vectors [n, d].
        groups: rows of each group of at least two products.
    """
    own = np.full(len(vectors), np.nan, np.float32)
    for rows in groups:
        cosines = vectors[rows] @ vectors[rows].T
        own[rows] = (cosines.sum(axis=1) - 1) / (len(rows) - 1)
    return np.asarray(GUARD * np.where(np.isnan(own), np.nanmean(own), own), np.float32)


def mine_hard_negatives(vectors: Vectors, known: SameProducts, guards: Vectors, rows: Rows) -> Rows:
    """Return the HARD nearest products of some products that are not the same, int64 [rows, HARD]; -1 where fewer are.

    A product that is not known to be different is left out if it is nearer than the guard.

    Args:
        vectors: unit vectors [n, d].
        known: about the n products.
        guards: from `find_guards`.
        rows: the products.
    """
    found = np.full((len(rows), HARD), -1, np.int64)
    left, right = known.different.T
    labelled = np.concatenate([left * len(vectors) + right, right * len(vectors) + left])
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        cosines = vectors[part] @ vectors.T
        near = np.argpartition(-cosines, min(NEAREST, cosines.shape[1] - 1), axis=1)[:, :NEAREST]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(cosines, near, 1), axis=1, kind="stable"), 1)
        is_same = known.groups[near] == known.groups[part][:, None]
        is_different = known.is_complete[near] & known.is_complete[part][:, None]
        is_different |= np.isin(part[:, None] * len(vectors) + near, labelled)
        usable = ~is_same & (is_different | (np.take_along_axis(cosines, near, 1) < guards[part][:, None]))
        for number, (candidates, is_usable) in enumerate(zip(near, usable, strict=True)):
            chosen = candidates[is_usable][:HARD]
            found[start + number, : len(chosen)] = chosen
    return found


def split_judged(sentences: Sentences, number: int) -> tuple[Rows, Rows]:
    """Return the products that fit a sentence, and those that were judged not to fit; without judgements all others."""
    fits = sentences.fits.indices[sentences.fits.indptr[number] : sentences.fits.indptr[number + 1]].astype(np.int64)
    if sentences.misfits is None:
        return fits, np.setdiff1d(np.arange(sentences.fits.shape[1]), fits)
    bounds = sentences.misfits.indptr[number : number + 2]
    return fits, sentences.misfits.indices[bounds[0] : bounds[1]].astype(np.int64)
