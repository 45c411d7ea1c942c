"""Reads the changes of products' vectors, prices and ages, as one sequence in time order."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix, to_matrix_of_width
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.features.ages import compute_expected_stage
from feature_repo.features.similarity import normalize_rows
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

Int64 = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ProductChanges:
    """m changes of products, sorted by event timestamp, then product id, then what changes.

    Each change sets a vector, a price or an age of one product. No two changes agree in all of this.
    """

    product_ids: pa.Array
    """The id of each product number. Products are numbered by first appearance, so later changes renumber none."""
    product: Int64
    """[m], the product number of each change."""
    timestamp_us: Int64
    """[m], microseconds since 1970 UTC."""
    vector: Int64
    """[m], the row of `vectors` that becomes the product's vector; -1 if a price or an age changes."""
    vectors: Floats
    """[vectors, d], fused vectors of unit length."""
    price: Floats
    """[m], the new price in the shop's currency; NaN if a vector or an age changes, or if the price is null."""
    age: Floats
    """[m], the new expected child age stage, an index of a stage with a fraction; NaN if a vector or a price
    changes, or if the product has no distribution of ages."""

    def apply(self, part: slice, vectors: Floats, price: Floats, age: Floats) -> NDArray[np.bool_]:
        """Apply a part of the changes, in their order, to the state of n products in place.

        A product's vector, price and age change separately; of several changes of one of them the last one counts. A
        null price or age leaves the previous one.

        Args:
            part: slice of 0 to m, the changes to apply. Their product numbers must be below n.
            vectors: float32 [n, d], the vectors by product number.
            price: float32 [n], the prices by product number.
            age: float32 [n], the expected age stages by product number.

        Returns:
            bool [n], whether the product's vector was set, even to the same vector.
        """
        is_changed = np.zeros(len(vectors), bool)
        product, vector = self.product[part], self.vector[part]
        rows = np.flatnonzero(vector >= 0)
        vectors[product[rows]] = self.vectors[vector[rows]]  # of repeated indices NumPy keeps the last
        is_changed[product[rows]] = True
        for target, values in ((price, self.price[part]), (age, self.age[part])):
            is_valid = ~np.isnan(values)
            target[product[is_valid]] = values[is_valid]
        return is_changed


def read_changes(settings: Settings, encoder_version: str) -> ProductChanges:
    """Read every change of a fused vector of one encoder version, of a price and of a predicted child age.

    Of several rows of a table for one product and event timestamp the one created last counts. Null vectors are left
    out; null prices and ages are kept, as NaN. A value that is stored again at a later time is a change too.

    Args:
        settings: the deployment. If it has no catalogue or no tags, there are no changes of prices or of ages.
        encoder_version: vectors of other versions, and ages that were predicted from such, are ignored.

    Raises:
        NotFoundError: there is no vector of this version.
    """
    key = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
    embedding = delta.read(
        settings.table(schema.EMBEDDING_TABLE),
        [*key, "fused_vector"],
        where=pc.field("encoder_version") == encoder_version,
    )
    tables = {"fused_vector": embedding.filter(pc.is_valid(pc.field("fused_vector")))}
    of_encoder = pc.field("encoder_version") == encoder_version
    for name, column, where in (
        (schema.CATALOGUE_TABLE, "price", None),
        (schema.TAGS_TABLE, "child_age_distribution", of_encoder),
    ):
        if delta.exists(settings.table(name)):
            tables[column] = delta.read(settings.table(name), [*key, column], where=where)
    vectors = normalize_rows(to_matrix(tables["fused_vector"]["fused_vector"]))
    if not len(vectors):
        raise NotFoundError(f"no vector of {encoder_version} in `product_embedding`; run `produce embeddings`")
    keys = pa.concat_tables([table.select(key) for table in tables.values()])
    vector, price = np.full(len(keys), -1), np.full(len(keys), np.nan, np.float32)
    age, kind = price.copy(), np.zeros(len(keys), np.int64)
    start, stages = 0, len(settings.age_scale.stages)
    for number, (column, table) in enumerate(tables.items()):
        part = slice(start, start + len(table))
        kind[part] = number
        if column == "fused_vector":
            vector[part] = np.arange(len(table))
        elif column == "price":
            price[part] = table["price"].cast(pa.float32()).to_numpy()
        else:
            age[part] = compute_expected_stage(to_matrix_of_width(table[column], stages))
        start += len(table)
    ids = keys[PRODUCT_ID].combine_chunks().dictionary_encode()
    rank = np.empty(len(ids.dictionary), np.int64)
    rank[np.argsort(ids.dictionary.to_numpy(zero_copy_only=False), kind="stable")] = np.arange(len(rank))
    event_us, created_us = (keys[name].cast(pa.int64()).to_numpy() for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
    code = ids.indices.to_numpy()
    order = np.lexsort((created_us, kind, rank[code], event_us))
    is_corrected = np.all([np.diff(values[order]) == 0 for values in (event_us, code, kind)], axis=0)
    order = order[np.append(~is_corrected, True)]
    _, first = np.unique(code[order], return_index=True)
    code_of_product = code[order][np.sort(first)]
    product_number = np.empty(len(rank), np.int64)
    product_number[code_of_product] = np.arange(len(rank))
    return ProductChanges(
        product_ids=ids.dictionary.take(pa.array(code_of_product)),
        product=product_number[code[order]],
        timestamp_us=event_us[order],
        vector=vector[order],
        vectors=vectors,
        price=price[order],
        age=age[order],
    )
