"""Where the headroom goes: all features, with one predicted input after another replaced by the truth.

    true tags      child age, gender and category as they are, instead of predicted
    true vectors   a product's true style instead of what the encoder saw of it
    true tastes    the user's true taste and child, instead of what the clicks say

Each step keeps those before it. Between the last of them and the attainable lies what the features lose beside the
truth itself; between the attainable and the oracle, what is in neither picture nor title, and what a ranker of this
size cannot learn of this many rows.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.ranking.content_features import Group, feature_groups, fit_projection
from consumers.ranking.ground_truth import Truth
from consumers.ranking.training_set import JoinedView, TrainingSet
from feature_repo import schema
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS

STEPS = ("true tags", "true vectors", "true tastes")


def steps(
    data: TrainingSet, truth: Truth, groups: Mapping[str, Group], start: int
) -> Iterator[tuple[str, list[Group]]]:
    """Each step's groups, in the order of STEPS.

    Args:
        data: the joined log.
        truth: of the same log.
        groups: as `feature_groups` gives them of `data`; what no truth replaces is taken from them.
        start: first microsecond of the test.
    """
    views = dict(data.views)
    if schema.TAGS_TABLE in views:
        views[schema.TAGS_TABLE] = _tags(truth, views[schema.TAGS_TABLE])
    with_tags = feature_groups(data.with_views(views), None)
    kept = {name: groups[name] for name in groups if name in ("codes", "neighbours", "vectors", "missing")}
    yield STEPS[0], [*kept.values(), *(with_tags[name] for name in ("tags", "affinity") if name in with_tags)]
    if schema.EMBEDDING_TABLE in views:
        views[schema.EMBEDDING_TABLE] = _vectors(truth, views[schema.EMBEDDING_TABLE])
        projection = fit_projection(views[schema.EMBEDDING_TABLE], start)
        with_tags = feature_groups(data.with_views(views), projection)
        kept |= {name: with_tags[name] for name in ("vectors",)}
    replaced = [*kept.values(), *(with_tags[name] for name in ("tags", "affinity") if name in with_tags)]
    yield STEPS[1], replaced
    tastes = {
        name: truth.features[name] for name in ("true_liking", "true_child_months", "true_age_gap", "true_gender_match")
    }
    yield STEPS[2], [*replaced, tastes]


def _tags(truth: Truth, tags: JoinedView) -> JoinedView:
    """The view of tags with the true ones, certain."""
    ages, genders = np.eye(len(CHILD_AGES), dtype=np.float32), np.eye(len(CHILD_GENDERS), dtype=np.float32)
    names = np.array(CHILD_AGES)
    versions = pa.table(
        {
            "child_age": pa.array(names[truth.product_age].tolist()),
            "child_gender": pa.array(np.array(CHILD_GENDERS)[truth.product_gender].tolist()),
            "category": truth.product_category,
            "category_probability": pa.array(np.ones(len(truth.product_age), np.float32)),
            "child_age_distribution": _lists(ages[truth.product_age]),
            "child_gender_distribution": _lists(genders[truth.product_gender]),
        }
    )
    return _of_products(truth, versions, tags)


def _vectors(truth: Truth, embedding: JoinedView) -> JoinedView:
    """The view of vectors with each product's true style, centred and of unit length; one vector instead of three."""
    style = truth.product_style - truth.product_style.mean(axis=0)
    style /= np.maximum(np.linalg.norm(style, axis=1, keepdims=True), 1e-9)
    return _of_products(truth, pa.table({"fused_vector": _lists(style.astype(np.float32))}), embedding)


def _of_products(truth: Truth, versions: pa.Table, joined: JoinedView) -> JoinedView:
    """One version for each of the truth's products, there where and as long as the joined view had one."""
    known = joined.row >= 0
    since = np.full(len(versions), np.iinfo(np.int64).max)
    np.minimum.at(since, truth.product[known], joined.since[joined.row[known]])
    return JoinedView(versions, since, np.where(known, truth.product, -1))


def _lists(rows: NDArray[np.float32]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(rows).ravel())
    return pa.ListArray.from_arrays(pa.array(np.arange(0, rows.size + 1, rows.shape[1]), pa.int32()), flat)
