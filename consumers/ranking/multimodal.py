"""The features that come from images and titles, in the groups that a team adopts or drops as a whole.

tags      what the product is, and whether that fits the user's child now
affinity  how close it is to what the user clicked
vectors   the fused vector itself, projected to a few dimensions
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.affinity import decayed_sums, rowwise_cosine, summaries, window_similarities
from consumers.ranking.history import Clicks, clicks_of_users
from consumers.ranking.training_set import JoinedView, TrainingSet, codes, gather
from feature_repo.features.ages import child_stage, expected_stage
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS

Group = dict[str, NDArray[Any]]
"""Feature name to float32 or int32 [n], as `rankers.Features`."""

WINDOW = 50
"""How many of a user's last clicks a candidate is held against."""
HALF_LIFE_DAYS = 14.0
"""After how long a click counts half in the user's interest."""
COMPONENTS = 8
"""Dimensions that the raw vector keeps."""
UNISEX = CHILD_GENDERS.index("unisex")


def feature_groups(data: TrainingSet, projection: NDArray[np.float32] | None) -> dict[str, Group]:
    """Every group that the joined views allow.

    Args:
        data: the joined log.
        projection: of the fused vector, as `fit_projection` gives it [d, COMPONENTS]; None leaves `vectors` out.
    """
    groups: dict[str, Group] = {}
    clicks = clicks_of_users(data.user, data.time, data.clicked)
    embedding, tags = data.views.get("product_embedding"), data.views.get("product_tags")
    if tags is not None:
        groups["tags"] = _tags(data, tags)
    if embedding is not None:
        groups["affinity"] = _affinity(data, embedding, clicks)
        if tags is not None:
            groups["affinity"] |= _tag_mix(data, tags, clicks)
        if projection is not None:
            groups["vectors"] = _vectors(embedding, projection)
    return groups


def fit_projection(embedding: JoinedView, before: int) -> NDArray[np.float32]:
    """Principal axes of the fused vectors of products there before `before` (microseconds) [d, COMPONENTS]."""
    vectors = embedding.vectors("fused_vector")
    vectors = vectors[(embedding.since < before) & ~np.isnan(vectors[:, 0])]
    _, axes = np.linalg.eigh(np.cov(vectors, rowvar=False, dtype=np.float64))
    return axes[:, ::-1][:, :COMPONENTS].astype(np.float32)


def _tags(data: TrainingSet, tags: JoinedView) -> Group:
    age = gather(tags.vectors("child_age_distribution"), tags.row)
    gender = gather(tags.vectors("child_gender_distribution"), tags.row)
    group: Group = {f"age_{label}": age[:, i] for i, label in enumerate(CHILD_AGES) if age.shape[1] > 1}
    group |= {f"gender_{label}": gender[:, i] for i, label in enumerate(CHILD_GENDERS) if gender.shape[1] > 1}
    group["category_tag"] = codes(tags.strings("category")).astype(np.int32)
    group["category_tag_probability"] = tags.numbers("category_probability")
    known = data.impressions.schema.names
    if "child_age_months" in known and age.shape[1] > 1:
        stage = child_stage(data.impressions.column("child_age_months").cast("float32").to_numpy())
        group["age_match"] = _pick(age, stage)
        group["age_gap"] = expected_stage(age) - stage
    if "child_gender" in known and gender.shape[1] > 1:
        column = data.impressions.column("child_gender").to_numpy(zero_copy_only=False)
        wanted = np.full(len(column), np.nan, np.float32)
        for index, label in enumerate(CHILD_GENDERS):
            wanted[column == label] = index
        group["gender_match"] = _pick(gender, wanted) + np.where(wanted == UNISEX, 0, gender[:, UNISEX])
    return group


def _affinity(data: TrainingSet, embedding: JoinedView, clicks: Clicks) -> Group:
    group: Group = {}
    for column in ("fused_vector", "image_vector", "text_vector"):
        if column not in embedding.versions.column_names:
            continue
        vectors = embedding.vectors(column)
        has_vector = ~np.isnan(vectors[:, 0])
        row = np.where((embedding.row >= 0) & has_vector[embedding.row], embedding.row, -1)
        name = column.removesuffix("_vector")
        similarities = window_similarities(row, vectors, clicks, data.user, WINDOW)
        group |= {f"{name}_{what}": values for what, values in summaries(similarities).items()}
        interest = decayed_sums(gather(vectors, row[clicks.rows]), clicks, data.user, data.time, HALF_LIFE_DAYS)
        group[f"{name}_interest"] = rowwise_cosine(row, np.nan_to_num(vectors), _last_click(clicks), interest)
    return group


def _tag_mix(data: TrainingSet, tags: JoinedView, clicks: Clicks) -> Group:
    """How well the candidate's tags fit the tags of what the user clicked."""
    group: Group = {}
    for tag in ("child_age", "child_gender"):
        distribution = tags.vectors(f"{tag}_distribution")
        if distribution.shape[1] == 1:
            continue
        clicked = gather(distribution, tags.row[clicks.rows])
        mix = decayed_sums(clicked, clicks, data.user, data.time, HALF_LIFE_DAYS)
        group[f"{tag}_mix_match"] = rowwise_cosine(tags.row, np.nan_to_num(distribution), _last_click(clicks), mix)
        if tag == "child_age":
            mix = mix / np.maximum(mix.sum(axis=1, keepdims=True), 1e-9)
            usual = gather(expected_stage(mix), _last_click(clicks))
            group["age_gap_to_history"] = expected_stage(gather(distribution, tags.row)) - usual
    return group


def _vectors(embedding: JoinedView, projection: NDArray[np.float32]) -> Group:
    projected = gather(embedding.vectors("fused_vector") @ projection, embedding.row)
    return {f"vector_{i}": projected[:, i] for i in range(projected.shape[1])}


def _last_click(clicks: Clicks) -> NDArray[np.int64]:
    """Position in `clicks.rows` of the user's last click before each row [n], -1 where there was none."""
    return np.where(clicks.before > 0, clicks.end - 1, -1)


def _pick(distribution: NDArray[np.float32], index: NDArray[np.float32]) -> NDArray[np.float32]:
    """`distribution[i, index[i]]` [n], NaN where the index is NaN."""
    known = ~np.isnan(index)
    result = np.full(len(index), np.nan, np.float32)
    result[known] = distribution[known, index[known].astype(np.int64)]
    return result
