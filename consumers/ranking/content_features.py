"""The features that come from images and titles, in the groups that a team adopts or drops as a whole.

tags        what the product is, and whether that fits the user's child now
affinity    how close it is to what the user clicked
vectors     the fused vector itself, projected to a few dimensions
codes       its semantic ID as a category, and what such products earned and whether the user clicked them
neighbours  what the nearest products earned
missing     what is not known of it, what was predicted instead, and how old that is

The relations are `feature_repo.features.affinity`'s, computed from the log and the joined products, so that they can
be computed again with the content of other products (`placebo.py`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import content
from consumers.ranking.click_counts import Clicks, clicks_of_users
from consumers.ranking.training_set import JoinedView, TrainingSet, codes, gather
from feature_repo import schema
from feature_repo.features.affinity import affinity, summaries
from feature_repo.features.ages import child_stage, expected_stage
from feature_repo.features.interest import Click, Means, means_of_histories
from feature_repo.features.similarity import cosines_of_windows, rowwise_cosine
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH

Group = dict[str, NDArray[Any]]
"""Feature name to float32 or int32 [n], as `rankers.Features`."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

COMPONENTS = 8
"""Dimensions that the raw vector keeps."""
BLOCK = 10_000
UNISEX = CHILD_GENDERS.index("unisex")
IDENTITIES = ("same_product", "same_code", "same_coarse_code")
"""Of the affinity features: the first is the baseline's (`twins.py`), the others belong to the codes."""


def feature_groups(data: TrainingSet, projection: Floats | None) -> dict[str, Group]:
    """Every group that the joined views allow.

    Args:
        data: the joined log.
        projection: of the fused vector, as `fit_projection` gives it [d, COMPONENTS]; None leaves `vectors` out.
    """
    groups: dict[str, Group] = {}
    clicks = clicks_of_users(data.user, data.time, data.clicked)
    embedding, tags = data.views.get(schema.EMBEDDING_TABLE), data.views.get(schema.TAGS_TABLE)
    if tags is not None:
        groups["tags"] = _tags(data, tags)
    if schema.CODES_TABLE in data.views:
        groups["codes"] = content.codes_group(data, data.views[schema.CODES_TABLE], clicks)
    if schema.NEIGHBOURS_TABLE in data.views:
        groups["neighbours"] = content.neighbours_group(data.views[schema.NEIGHBOURS_TABLE])
    if embedding is not None:
        groups["affinity"] = _affinity(data, embedding, tags, clicks)
        if projection is not None:
            groups["vectors"] = _vectors(embedding, projection)
        groups["missing"] = content.missing_group(data, embedding, tags)
    return groups


def fit_projection(embedding: JoinedView, before: int) -> Floats:
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


def _affinity(data: TrainingSet, embedding: JoinedView, tags: JoinedView | None, clicks: Clicks) -> Group:
    """`affinity` of the fused vector and the tags, and the same cosines of the picture and of the title alone."""
    ages, genders = (_distribution(tags, f"child_{tag}_distribution", len(labels)) for tag, labels in _TAGS)
    tag_row = tags.row if tags is not None else np.full(len(data.time), -1)
    fused = embedding.vectors("fused_vector")
    row = _with_vector(embedding, fused)
    means = _means(data, clicks, fused, row, (ages, genders), tag_row)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    similarity = _similarities(row, fused, clicks, data.user)
    interest = rowwise_cosine(row, np.nan_to_num(fused), last, np.nan_to_num(means.vector))
    passed = np.where(last >= 0, data.time - means.time[last] if len(means.time) else 0, 0)
    blank = np.full(len(row), np.nan, np.float32)
    found = _in_blocks(
        len(row),
        lambda part: affinity(
            similarity[part],
            interest[part],
            (gather(ages, tag_row[part]), gather(means.ages, last[part])),
            (gather(genders, tag_row[part]), gather(means.genders, last[part])),
            passed[part],
            blank[part],
            (blank[part], blank[part]),
        ),
    )
    group: Group = {
        f"affinity_{name}": values
        for name, values in found.items()
        if name not in IDENTITIES and (tags is not None or name not in ("age_match", "gender_match", "age_gap"))
    }
    for column in ("image_vector", "text_vector"):
        if column in embedding.versions.column_names:
            vectors = embedding.vectors(column)
            group |= _one_modality(
                data, column.removesuffix("_vector"), vectors, _with_vector(embedding, vectors), clicks
            )
    return group


_TAGS = (("age", CHILD_AGES), ("gender", CHILD_GENDERS))


def _one_modality(data: TrainingSet, name: str, vectors: Floats, row: Ints, clicks: Clicks) -> Group:
    similarity = _similarities(row, vectors, clicks, data.user)
    found = _in_blocks(len(row), lambda part: summaries(similarity[part]))
    group: Group = {f"{name}_{what}": values for what, values in found.items()}
    means = _means(data, clicks, vectors, row, None, row)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    group[f"{name}_interest_cosine"] = rowwise_cosine(row, np.nan_to_num(vectors), last, np.nan_to_num(means.vector))
    return group


def _in_blocks(rows: int, features: Callable[[slice], dict[str, Floats]]) -> dict[str, Floats]:
    """The features of all rows, a block at a time: what is computed for each row and click stays in the cache."""
    pieces = [features(slice(start, start + BLOCK)) for start in range(0, max(rows, 1), BLOCK)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _similarities(row: Ints, vectors: Floats, clicks: Clicks, user: Ints) -> Floats:
    """Cosine of each row's candidate to each of its user's last clicks strictly before it [n, HISTORY_LENGTH]."""
    return cosines_of_windows(vectors, row, row[clicks.rows], clicks.before, clicks.end, user, HISTORY_LENGTH)


def _means(
    data: TrainingSet, clicks: Clicks, vectors: Floats, row: Ints, tags: tuple[Floats, Floats] | None, tag_row: Ints
) -> Means:
    """What each user's clicks so far say of the user, just after each click [clicks]."""
    of_clicks = clicks.rows
    shown = tag_row[of_clicks]
    ages, genders = (
        (gather(each, shown) for each in tags)
        if tags is not None
        else (np.full((len(shown), len(labels)), np.nan, np.float32) for _, labels in _TAGS)
    )
    click = Click(gather(vectors, row[of_clicks]), ages, genders, data.time[of_clicks])
    users = int(data.user.max(initial=-1)) + 1
    return means_of_histories(click, np.searchsorted(data.user[of_clicks], np.arange(users + 1)))


def _vectors(embedding: JoinedView, projection: Floats) -> Group:
    projected = gather(embedding.vectors("fused_vector") @ projection, embedding.row)
    return {f"vector_{i}": projected[:, i] for i in range(projected.shape[1])}


def _distribution(tags: JoinedView | None, column: str, width: int) -> Floats:
    """A distribution of each version [versions, width], NaN where there is none."""
    values = tags.vectors(column) if tags is not None else np.full((0, width), np.nan, np.float32)
    return values if values.shape[1] == width else np.full((len(values), width), np.nan, np.float32)


def _with_vector(embedding: JoinedView, vectors: Floats) -> Ints:
    """The row of `vectors` for each impression [n], -1 where there is no vector."""
    has_vector = np.append(~np.isnan(vectors[:, 0]), False)
    return np.where(has_vector[embedding.row], embedding.row, -1)


def _pick(distribution: Floats, index: Floats) -> Floats:
    """`distribution[i, index[i]]` [n], NaN where the index is NaN."""
    known = ~np.isnan(index)
    result = np.full(len(index), np.nan, np.float32)
    result[known] = distribution[known, index[known].astype(np.int64)]
    return result
