"""The same and similar products of a product: its group, and its nearest ones by weighted cosines."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from consumers.search.similarity_weights import SimilarityWeights, combine_cosines, compute_cosines
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index.nearest import Ints
from feature_repo.index.product_index import ProductIndex
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

Floats = NDArray[np.float64]

SAME, SIMILAR = "same", "similar"
POOL = 200
"""Nearest products by each vector, among which the most similar ones are chosen."""
VECTORS = ("image_vector", "text_vector")
COLUMNS = ("title", "category", "brand", "price", schema.SELLER_ID)


def list_related(
    settings: Settings, index: ProductIndex, product_ids: Sequence[str], weights: SimilarityWeights, *, top_k: int
) -> pa.Table:
    """Return for each product those of its group, then the most similar others.

    Args:
        settings: the deployment.
        index: of the encoder version in production.
        product_ids: the products.
        weights: of pictures and titles.
        top_k: most similar products of each one; those of its group are not counted.

    Returns:
        Columns `product_id`, `relation` (SAME or SIMILAR), `rank` (from 1 within a relation), `other_id`, `similarity`
        (null where the two have no common kind of vector) and COLUMNS of the other product.

    Raises:
        InvalidInputError: `top_k` is less than 1, or the index has neither of VECTORS.
        NotFoundError: a product is not in the index, or has left the shop.
    """
    if top_k < 1:
        raise InvalidInputError(f"top_k is {top_k}; expected at least 1")
    if not set(VECTORS) & set(index.vectors):
        raise InvalidInputError(f"the index has no vector of {', '.join(VECTORS)}; run produce index with one of them")
    rows = index.find_rows(product_ids)
    is_visible = np.zeros(len(index.flags), bool)
    is_visible[np.concatenate([start + one for start, one in zip(index.starts, index.all.rows, strict=False)])] = True
    for product_id, row in zip(product_ids, rows.tolist(), strict=True):
        if row < 0 or not is_visible[row]:
            reason = "is not in the index" if row < 0 else "has left the shop"
            raise NotFoundError(f"product {product_id} {reason}; name another one, or run produce index")
    members = _read_members(settings, product_ids)
    parts = []
    for product_id, row in zip(product_ids, rows.tolist(), strict=True):
        same = index.find_rows(members.get(product_id, []))
        same = same[(same >= 0) & (same != row)]
        same = same[is_visible[same]]
        parts.append(_build_rows(index, product_id, SAME, *_sort_by_similarity(index, row, same, weights)))
        similar = rank_similar(index, row, same, weights, top_k=top_k)
        parts.append(_build_rows(index, product_id, SIMILAR, *similar))
    return pa.concat_tables(parts)


def rank_similar(
    index: ProductIndex, row: int, same: Ints, weights: SimilarityWeights, *, top_k: int
) -> tuple[Ints, Floats]:
    """Return the rows that are most similar to a row, and their similarities, descending.

    Args:
        index: of the rows.
        row: the product's row.
        same: rows of the same product, which are left out.
        weights: of pictures and titles.
        top_k: most rows to return; fewer if the index has fewer.
    """
    others = np.setdiff1d(_draw_pool(index, row, top_k + len(same) + 1), [row, *same])
    rows, similarity = _sort_by_similarity(index, row, others, weights)
    return rows[:top_k], similarity[:top_k]


def render_related(table: pa.Table) -> Table:
    """Return what `list_related` returned as a table for a terminal."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("product", "relation", "rank", "other", "similarity", "seller", "price", "title"):
        shown.add_column(heading, justify="right" if heading in ("rank", "similarity", "price") else "left")
    for row in table.to_pylist():
        shown.add_row(
            row[PRODUCT_ID],
            row["relation"],
            str(row["rank"]),
            row["other_id"],
            "" if row["similarity"] is None else f"{row['similarity']:.3f}",
            row[schema.SELLER_ID] or "",
            "" if row["price"] is None else f"{row['price']:.2f}",
            row["title"] or "",
        )
    return shown


def _draw_pool(index: ProductIndex, row: int, top_k: int) -> Ints:
    """Return the rows that are nearest by each vector of a row, each once."""
    pools = [np.empty(0, np.int64)]
    for vector in VECTORS:
        if vector in index.vectors:
            query = index.take_vectors(vector, np.array([row]))[0]
            if not np.isnan(query[0]):
                pools.append(index.search(vector, query, max(POOL, top_k))[0])
    return np.unique(np.concatenate(pools))


def _sort_by_similarity(index: ProductIndex, row: int, others: Ints, weights: SimilarityWeights) -> tuple[Ints, Floats]:
    """Return some rows by their similarity to a row, the most similar first, and the similarities."""
    image, text = (compute_cosines(index, vector, np.full(len(others), row), others) for vector in VECTORS)
    category = index.take(np.array([row]), ["category"])["category"][0].as_py()
    similarity = combine_cosines(image, text, weights.find(category))
    order = np.lexsort((others, -np.nan_to_num(similarity, nan=-2)))
    return others[order], similarity[order]


def _build_rows(index: ProductIndex, product_id: str, relation: str, rows: Ints, similarity: Floats) -> pa.Table:
    found = index.take(rows, [PRODUCT_ID, *COLUMNS])
    return pa.table(
        {
            PRODUCT_ID: pa.repeat(pa.scalar(product_id), len(rows)),
            "relation": pa.repeat(pa.scalar(relation), len(rows)),
            "rank": pa.array(np.arange(1, len(rows) + 1)),
            "other_id": found[PRODUCT_ID],
            "similarity": pa.array(similarity, pa.float64(), from_pandas=True),
            **{name: found[name] for name in COLUMNS},
        }
    )


def _read_members(settings: Settings, product_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return the products of each product's group, the product included; none without groups."""
    path = settings.table(schema.GROUP_TABLE)
    if not delta.exists(path):
        return {}
    groups = versions.read_newest(
        delta.open_dataset(path),
        [PRODUCT_ID, "group_id"],
        None,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
    own = groups.filter(pc.is_in(groups[PRODUCT_ID], value_set=pa.array(product_ids)))
    groups = groups.filter(pc.is_in(groups["group_id"], value_set=own["group_id"].combine_chunks()))
    members: dict[str, list[str]] = {}
    for row in groups.to_pylist():
        members.setdefault(row["group_id"], []).append(row[PRODUCT_ID])
    return {row[PRODUCT_ID]: members[row["group_id"]] for row in own.to_pylist()}
