"""What changes of products over time: vectors, prices, ages, in one order."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.features.ages import compute_expected_stage
from feature_repo.features.similarity import normalize_rows
from feature_repo.offline import delta
from feature_repo.schema import CHILD_AGES, CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

Int64 = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Changes:
    """What changes of products, in the order of event, then created timestamps: m changes."""

    products: pa.Array
    """Ids of the numbers in `product`: numbered as they first appear, so that later ones renumber none."""
    product: Int64
    time: Int64
    """[m], microseconds."""
    vector: Int64
    """[m], a row of `vectors`; -1 where something else changes."""
    vectors: Floats
    price: Floats
    """[m], NaN where something else changes, or nothing is known."""
    age: Floats

    def apply(self, part: slice, vectors: Floats, price: Floats, age: Floats) -> NDArray[np.bool_]:
        """Bring products up to date in place; returns whose vector is another: bool [products]."""
        changed = np.zeros(len(vectors), bool)
        product, vector = self.product[part], self.vector[part]
        rows = np.flatnonzero(vector >= 0)
        vectors[product[rows]] = self.vectors[vector[rows]]  # of repeated indices NumPy keeps the last
        changed[product[rows]] = True
        for target, values in ((price, self.price[part]), (age, self.age[part])):
            known = ~np.isnan(values)
            target[product[known]] = values[known]
        return changed


def read_changes(settings: Settings, version: str) -> Changes:
    """Every change of a vector of this encoder version, of a price or of an age, in time order.

    Raises:
        VitrineError: there is no vector.
    """
    of_encoder = pc.field("encoder_version") == version
    key = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
    embedding = delta.read(settings.table(schema.EMBEDDING_TABLE), [*key, "fused_vector"], where=of_encoder)
    tables: list[tuple[pa.Table, str]] = [(embedding.filter(pc.is_valid(pc.field("fused_vector"))), "vector")]
    for name, column, kind in (
        (schema.CATALOGUE_TABLE, "price", "price"),
        (schema.TAGS_TABLE, "child_age_distribution", "age"),
    ):
        if delta.exists(settings.table(name)):
            tables.append((delta.read(settings.table(name), [*key, column]), kind))
    sizes = [len(table) for table, _ in tables]
    keys = pa.concat_tables([table.select(key) for table, _ in tables])
    vector, price = np.full(len(keys), -1), np.full(len(keys), np.nan, np.float32)
    age = price.copy()
    start = 0
    for (table, kind), size in zip(tables, sizes, strict=True):
        part = slice(start, start + size)
        if kind == "vector":
            vector[part] = np.arange(size)
            vectors = normalize_rows(to_matrix(table["fused_vector"]))
        elif kind == "price":
            price[part] = table["price"].cast(pa.float32()).to_numpy()
        else:
            age[part] = compute_expected_stage(to_matrix(table["child_age_distribution"], len(CHILD_AGES)))
        start += size
    if not len(vectors):
        raise VitrineError(f"no vector of {version} in `product_embedding`; run `produce embeddings`")
    names = keys[PRODUCT_ID].combine_chunks().dictionary_encode()
    rank = np.empty(len(names.dictionary), np.int64)
    rank[np.argsort(names.dictionary.to_numpy(zero_copy_only=False), kind="stable")] = np.arange(len(rank))
    time, created = (keys[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
    code = names.indices.to_numpy()
    order = np.lexsort((created, rank[code], time))
    _, first = np.unique(code[order], return_index=True)
    number = np.empty(len(rank), np.int64)
    number[code[order][np.sort(first)]] = np.arange(len(rank))
    ids = names.dictionary.take(pa.array(code[order][np.sort(first)]))
    return Changes(ids, number[code[order]], time[order], vector[order], vectors, price[order], age[order])
