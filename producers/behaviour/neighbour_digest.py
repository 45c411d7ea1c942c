"""The digest of what a version of `product_neighbours` was made from: the other products' state, and its own vector.

Only products with impressions can be neighbours, so the digest of a state is the sum, modulo 2**64, of the digests of
these products. That of a version leaves out the product itself, whose impressions, price and age never take part.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.features.neighbours import PRIOR_STRENGTH
from feature_repo.offline import delta
from feature_repo.offline.rewritten_files import find_changed_version
from feature_repo.schema import INPUT_DIGEST
from producers import input_digest
from producers.behaviour.impression_log import ImpressionLog
from producers.behaviour.product_changes import ProductChanges
from producers.input_digest import Digests

Int64 = NDArray[np.int64]
REVISION = 2
"""Increased with every change of the code that changes a value."""


class CountedProducts(Protocol):
    """The state of n products that the digest reads, each [n]."""

    impressions: Int64
    clicks: Int64
    price: NDArray[np.float32]
    age: NDArray[np.float32]


@dataclass
class StateHashes:
    """Digests of n products at one time; n grows. A product is given by its number."""

    ids: Digests
    """[products], of all ids, by product number."""
    vectors: Digests
    """[vectors], of all vectors of `ProductChanges`."""
    parameters: np.uint64
    own_vector: Digests
    """[products], of each product's vector; 0 without one."""
    product: Digests
    """[n], what each product adds to the digest of the state."""

    @staticmethod
    def create(product_ids: pa.Array, vectors: NDArray[np.float32], top_k: int) -> "StateHashes":
        """Return the digests before the first change.

        Args:
            product_ids: the id of each product number, also of products that come later.
            vectors: float32 [vectors, d], all vectors that products will have.
            top_k: how many neighbours a version is computed from.
        """
        none = np.zeros(0, np.uint64)
        return StateHashes(
            input_digest.hash_texts(product_ids),
            input_digest.hash_vectors(vectors),
            _hash_parameters(top_k),
            np.zeros(len(product_ids), np.uint64),
            none,
        )

    def update(self, product: Int64, vector: Int64, state: CountedProducts) -> None:
        """Follow the state to a later time.

        Args:
            product: [m], the product numbers of the changes since the last update, in their order.
            vector: [m], the row of the vector that becomes the product's; -1 for another change.
            state: the state after the changes.
        """
        rows = np.flatnonzero(vector >= 0)
        self.own_vector[product[rows]] = self.vectors[vector[rows]]  # of repeated numbers NumPy keeps the last
        count = len(state.impressions)
        self.product = input_digest.combine(
            self.ids[:count],
            input_digest.hash_numbers(state.impressions),
            input_digest.hash_numbers(state.clicks),
            self.own_vector[:count],
            input_digest.hash_vectors(state.price[:, None]),
            input_digest.hash_vectors(state.age[:, None]),
        )
        self.product[state.impressions == 0] = 0

    def compute(self, own: Int64, vector: Int64 | None = None) -> Digests:
        """Return the digests of m versions of the current state.

        Args:
            own: [m], product numbers; -1 for a product that is not in the state yet.
            vector: [m], the row of each product's own vector; None for the one that it has in the state.
        """
        is_in_state = own >= 0
        if len(self.product):
            others = self.product.sum(dtype=np.uint64) - np.where(is_in_state, self.product[own], np.uint64(0))
        else:
            others = np.zeros(len(own), np.uint64)
        own_vector = self.own_vector[own] if vector is None else self.vectors[vector]
        own_vector = np.where(others == 0, np.uint64(0), own_vector)  # without others it makes no difference
        return input_digest.combine(np.full(len(own), self.parameters), others, own_vector)

    def compute_history(
        self, log: ImpressionLog, changes: ProductChanges, starts_us: Int64, interval_us: int, start_us: int
    ) -> int:
        """Return the digest of everything before the start of an interval, from 0 to 2**63 - 1.

        All versions before it, and the lists of nearest products at it, depend on nothing else.

        Args:
            log: the impressions; those at `start_us` do not count.
            changes: the changes of products from which this object was made; those at `start_us` count.
            starts_us: starts of all intervals; only the first one is used.
            interval_us: length of an interval.
            start_us: start of the interval.
        """
        part = slice(int(np.searchsorted(changes.timestamp_us, start_us, "right")))
        vector = changes.vector[part]
        products = input_digest.combine(
            self.ids[changes.product[part]],
            input_digest.hash_numbers(changes.timestamp_us[part]),
            np.where(vector < 0, np.uint64(0), self.vectors[vector]),
            input_digest.hash_vectors(changes.price[part, None]),
            input_digest.hash_vectors(changes.age[part, None]),
        )
        times = input_digest.hash_numbers(np.array([starts_us[0], interval_us, start_us]))
        shown = _hash_impressions(log, int(np.searchsorted(log.timestamp_us, start_us)))
        return _combine_numbers(self.parameters, *times, shown, products.sum(dtype=np.uint64))

    def compute_early(self, count: int) -> Digests:
        """Return the digests of versions before the first interval, when no product has impressions."""
        nothing = np.zeros(count, np.uint64)
        return input_digest.combine(np.full(count, self.parameters), nothing, nothing)


def hash_run(settings: Settings, log: ImpressionLog, interval_us: int, top_k: int) -> int:
    """Return the digest of everything that a run reads, from 0 to 2**63 - 1, without reading a table.

    Args:
        settings: the deployment. Of its tables the versions count, without those of `produce vacuum` and compactions;
            so another digest does not mean other rows.
        log: the impressions.
        interval_us: length of an interval.
        top_k: how many neighbours a version is computed from.
    """
    texts = [f"{settings.age_scale}"]
    for name in (schema.EMBEDDING_TABLE, schema.CATALOGUE_TABLE, schema.TAGS_TABLE):
        path = settings.table(name)
        table = delta.open_table(path) if delta.exists(path) else None
        texts.append(f"{name} {table and table.metadata().id} {table and find_changed_version(path)}")
    interval = input_digest.hash_numbers(np.array([interval_us]))
    numbers = (_hash_parameters(top_k), *interval, _hash_impressions(log, len(log)))
    return _combine_numbers(*numbers, *input_digest.hash_texts(pa.array(texts)))


def _hash_impressions(log: ImpressionLog, count: int) -> np.uint64:
    """Return the digest of the first `count` impressions, whatever the order of those of one time."""
    digests = input_digest.combine(
        input_digest.hash_texts(log.product_ids)[log.product[:count]],
        input_digest.hash_numbers(log.timestamp_us[:count]),
        input_digest.hash_numbers(log.is_clicked[:count].astype(np.int64)),
    )
    return digests.sum(dtype=np.uint64)


def _hash_parameters(top_k: int) -> np.uint64:
    numbers = input_digest.hash_numbers(np.array([REVISION, top_k, round(PRIOR_STRENGTH * 1000)]))
    return input_digest.combine(*numbers[:, None])[0]


def _combine_numbers(*digests: np.uint64) -> int:
    """Return one number for several digests, in their order, from 0 to 2**63 - 1."""
    return int(input_digest.combine(*(np.array([one]) for one in digests))[0]) >> 1


def set_digests(rows: pa.Table, digests: Digests) -> pa.Table:
    """Return rows with their digests in the column `input_digest`, which they have already."""
    index = rows.schema.get_field_index(INPUT_DIGEST)
    return rows.set_column(index, rows.schema.field(index), input_digest.to_arrow(digests))
