"""Text-to-image recall of stored vectors, for products that the encoder has seen and for those that it has not."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.tagging import metrics
from consumers.tagging.estimates import Estimate, make_estimate
from consumers.tagging.metrics import Ints
from consumers.tagging.novelty import LabelledProducts, SeenComparison, compare_seen
from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

CUTOFFS = (1, 5, 10)
"""The numbers of images among which a right one is looked for."""
MAX_PRODUCTS = 4_000
"""Most products that are searched; of more, a sample is drawn, the same in each call."""


@dataclass(frozen=True)
class RecallAt:
    """The share of titles with an image of their own group among the `cutoff` nearest images, by cosine."""

    cutoff: int
    """One of CUTOFFS."""
    recall: Estimate
    """Of all products."""
    by_seen: SeenComparison | None
    """Of products that the encoder was trained on and of others; None if it is not known which those are."""


def measure_recall(
    settings: Settings, products: LabelledProducts, product_ids: pa.Array, groups: pa.Array, replicates: int, seed: int
) -> list[RecallAt]:
    """Measure the text-to-image recall of the stored vectors among some labelled products.

    Each title searches the images of all of these products. Products without image or title are left out. An image of
    another group with the same cosine ranks first.

    Args:
        settings: the deployment.
        products: the labelled products, with the encoder.
        product_ids: the products to search [n], each once.
        groups: the group of each, such as the design [n].
        replicates: number of bootstrap replicates of the intervals, which draw groups.
        seed: seed of the bootstrap.

    Returns:
        One for each of CUTOFFS; none if fewer than two products have both vectors.
    """
    if products.encoder_version is None:
        return []
    if len(product_ids) > MAX_PRODUCTS:
        drawn = np.sort(np.random.default_rng(0).choice(len(product_ids), MAX_PRODUCTS, replace=False))
        product_ids, groups = product_ids.take(pa.array(drawn)), groups.take(pa.array(drawn))
    text, image = _read_vectors(settings, products.encoder_version, product_ids)
    has_both = np.flatnonzero(~np.isnan(text[:, 0]) & ~np.isnan(image[:, 0]))
    if len(has_both) < 2:
        return []
    group = pc.dictionary_encode(groups.take(pa.array(has_both))).indices.to_numpy()
    rank = _rank_right_images(text[has_both] @ image[has_both].T, group)
    weights = metrics.draw_group_weights(int(group.max()) + 1, replicates, seed)
    row = products.find(product_ids.take(pa.array(has_both)))
    return [
        RecallAt(
            cutoff,
            make_estimate(metrics.compute_share(rank < cutoff, group, weights)),
            compare_seen(rank < cutoff, group, weights, products, row),
        )
        for cutoff in CUTOFFS
    ]


def _rank_right_images(scores: NDArray[np.float32], group: Ints) -> Ints:
    """Return how many images of other groups score at least as high as the best of a title's own group [n]."""
    is_right = group[:, None] == group[None, :]
    best = np.where(is_right, scores, -np.inf).max(axis=1)
    rank: Ints = ((scores >= best[:, None]) & ~is_right).sum(axis=1)
    return rank


def _read_vectors(
    settings: Settings, encoder_version: str, product_ids: pa.Array
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the text and image vectors of each product's newest version, float32 [n, d]; NaN where there is none."""
    columns = ["text_vector", "image_vector"]
    where = (pc.field("encoder_version") == encoder_version) & pc.field(PRODUCT_ID).isin(product_ids)
    key = [PRODUCT_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP]
    rows = delta.read(settings.table(schema.EMBEDDING_TABLE), [*key, *columns], where=where)
    order = pc.sort_indices(rows.select(key), [(name, "ascending") for name in key]).to_numpy()
    position = pc.index_in(rows[PRODUCT_ID], value_set=product_ids).to_numpy(zero_copy_only=False)[order]
    newest = np.full(len(product_ids), -1)
    newest[position] = order  # of repeated positions the last one stays
    found = newest[newest >= 0]
    result = []
    for name in columns:
        values = to_matrix(rows[name])
        matrix = np.full((len(product_ids), values.shape[1]), np.nan, np.float32)
        matrix[newest >= 0] = values[found]
        result.append(matrix)
    return result[0], result[1]
