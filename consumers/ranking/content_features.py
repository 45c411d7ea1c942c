"""The features that come from images and titles, in groups that are adopted or dropped as a whole.

    tags        the product's tags, and whether they fit the user's child now
    affinity    the similarity of the product to what the user clicked
    vectors     the fused vector, projected to a few dimensions
    codes       the semantic ID as a category, its click rates, and the user's clicks on it
    neighbours  statistics of the nearest products
    missing     what is unknown about the product, and the age of what is known

The relations are those of `feature_repo.features.affinity`, computed from the log and the joined products, so that they
can be computed again with permuted content (`placebo.py`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.baseline_features import RATE_STRENGTH, overall_rate, pair_codes
from consumers.ranking.click_counts import ClickIndex, count_before, index_clicks, smooth_rate
from consumers.ranking.identity_controls import WINDOW, count_same_clicked
from consumers.ranking.training_set import JoinedView, RankingTrainingSet, encode_values, gather_rows
from feature_repo import schema
from feature_repo.age_scale import SETTING, AgeScale
from feature_repo.errors import CorruptDataError
from feature_repo.features import missing
from feature_repo.features.affinity import compute_affinity, summarize_top_similarities
from feature_repo.features.ages import compute_expected_stage, find_child_stage
from feature_repo.features.interest import Clicks, InterestMeans, compute_interest_histories
from feature_repo.features.neighbours import NAMES as NEIGHBOURS
from feature_repo.features.similarity import compute_pair_cosines, compute_window_cosines
from feature_repo.schema import CHILD_GENDERS, HISTORY_LENGTH, TAG_SEPARATOR, TAGS

FeatureGroup = dict[str, NDArray[Any]]
"""Feature name to float32 or int32 [n], as `lightgbm_ranker.Features`."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

COMPONENTS = 8
"""Dimensions of the projected vector."""
BLOCK = 10_000
"""Rows that are computed at once, so that the values of each row and click stay in the processor's cache."""
UNISEX = CHILD_GENDERS.index("unisex")
IDENTITIES = ("same_product", "same_code", "same_coarse_code")
"""Affinity features that are left out here: the first belongs to the baseline, the others to the codes."""


def compute_groups(data: RankingTrainingSet, projection: Floats | None) -> dict[str, FeatureGroup]:
    """Compute every group that the joined views allow; a group whose view is not joined is left out.

    `affinity`, `vectors` and `missing` need the view product_embedding; `tags`, `codes` and `neighbours` need
    product_tags, product_codes and product_neighbours. Without product_tags, `affinity` and `missing` lack the features
    of tags. Whether the tags fit the user's child is left out if the log lacks `child_age_months` or `child_gender`.

    Args:
        data: the joined log of n impressions.
        projection: axes that `fit_projection` returned [d, COMPONENTS]; None leaves out the group `vectors`.

    Returns:
        Group name to its features: float32 [n], NaN for missing, or int32 category codes [n], -1 for missing. In the
        order tags, codes, neighbours, affinity, vectors, missing; empty if no view allows a group.

    Raises:
        CorruptDataError: the vectors of one column have different lengths, or distributions of ages are not over the
            stages of the deployment's scale.
        KeyError: a joined view lacks a column that its group is made of.
    """
    groups: dict[str, FeatureGroup] = {}
    clicks = index_clicks(data.user, data.timestamp_us, data.clicked)
    embedding, tags = data.views.get(schema.EMBEDDING_TABLE), data.views.get(schema.TAGS_TABLE)
    if tags is not None:
        groups["tags"] = _tags(data, tags)
    if schema.CODES_TABLE in data.views:
        groups["codes"] = _codes(data, data.views[schema.CODES_TABLE], clicks)
    if neighbours := data.views.get(schema.NEIGHBOURS_TABLE):
        groups["neighbours"] = {name: neighbours.numbers(name) for name in NEIGHBOURS}
    if embedding is not None:
        groups["affinity"] = _affinity(data, embedding, tags, clicks)
        if projection is not None:
            projected = gather_rows(embedding.vectors("fused_vector") @ projection, embedding.row_index)
            groups["vectors"] = {f"vector_{i}": projected[:, i] for i in range(projected.shape[1])}
        groups["missing"] = _missing(data, embedding, tags)
    return groups


def fit_projection(embedding: JoinedView, before_us: int) -> Floats:
    """Return the principal axes of the fused vectors, that of the largest variance first, float32 [d, COMPONENTS].

    There are d axes if vectors have fewer than COMPONENTS dimensions. The sign of an axis means nothing.

    Args:
        embedding: the joined view of vectors; each version counts once, and missing vectors do not count.
        before_us: only versions with an event timestamp before this count, in microseconds since 1970 UTC; there must
            be two or more.
    """
    vectors = embedding.vectors("fused_vector")
    vectors = vectors[(embedding.timestamp_us < before_us) & ~np.isnan(vectors[:, 0])]
    _, axes = np.linalg.eigh(np.cov(vectors, rowvar=False, dtype=np.float64))
    return axes[:, ::-1][:, :COMPONENTS].astype(np.float32)


def _tags(data: RankingTrainingSet, tags: JoinedView) -> FeatureGroup:
    """The distributions and the category of the tags; how they fit the child, if the log has the child's age or gender.

    A distribution whose lists are all null is left out.
    """
    scale = data.age_scale
    age = gather_rows(tags.vectors("child_age_distribution"), tags.row_index)
    _require_scale(age.shape[1], scale)
    gender = gather_rows(tags.vectors("child_gender_distribution"), tags.row_index)
    group: FeatureGroup = {f"age_{label}": age[:, i] for i, label in enumerate(scale.stages) if age.shape[1] > 1}
    group |= {f"gender_{label}": gender[:, i] for i, label in enumerate(CHILD_GENDERS) if gender.shape[1] > 1}
    group["category_tag"] = encode_values(tags.strings("category")).astype(np.int32)
    group["category_tag_probability"] = tags.numbers("category_probability")
    group |= _further_tags(tags)
    columns = data.impressions.schema.names
    if "child_age_months" in columns and age.shape[1] > 1:
        stage = find_child_stage(data.impressions.column("child_age_months").cast("float32").to_numpy(), scale.bounds)
        group["age_match"] = _pick(age, stage)
        group["age_gap"] = compute_expected_stage(age) - stage
    if "child_gender" in columns and gender.shape[1] > 1:
        column = data.impressions.column("child_gender").to_numpy(zero_copy_only=False)
        child = np.full(len(column), np.nan, np.float32)
        for index, label in enumerate(CHILD_GENDERS):
            child[column == label] = index
        group["gender_match"] = _pick(gender, child) + np.where(child == UNISEX, 0, gender[:, UNISEX])
    return group


def _further_tags(tags: JoinedView) -> FeatureGroup:
    """The value of each further tag that a version has, as a category; -1 where a row has none."""
    if "further_tags" not in tags.versions.column_names:
        return {}
    lists = tags.versions.column("further_tags").combine_chunks()
    version, texts = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists).to_pylist()
    pairs = [text.partition(TAG_SEPARATOR)[::2] for text in texts]
    group: FeatureGroup = {}
    for tag in sorted({tag for tag, _ in pairs}):
        values = np.full(len(lists), None, dtype=object)
        for row, (name, value) in zip(version, pairs, strict=True):
            if name == tag:
                values[row] = value
        column = pa.array(values, pa.string()).take(pa.array(tags.row_index, mask=tags.row_index < 0))
        group[f"tag_{tag}"] = encode_values(column).astype(np.int32)
    return group


def _require_scale(stages: int, scale: AgeScale) -> None:
    """Raise CorruptDataError if distributions of ages are not over the stages of the deployment's scale."""
    if stages not in (1, len(scale.stages)):  # 1: no tagger of ages was trained
        raise CorruptDataError(
            f"product_tags.child_age_distribution has {stages} stages and {SETTING} in feature_store.yaml has "
            f"{len(scale.stages)}; run `produce tags`, `produce interests` and `feast materialize` again"
        )


def _codes(data: RankingTrainingSet, view: JoinedView, clicks: ClickIndex) -> FeatureGroup:
    """The semantic ID and its first code as categories, and for each the click rate overall and of this user."""
    semantic = encode_values(view.strings("semantic_id"))
    has_codes = view.versions.column("codes").is_valid()
    first = pc.list_element(view.versions.column("codes").filter(has_codes), 0)
    version_coarse = np.full(len(view.versions), -1, np.int64)
    version_coarse[has_codes.to_numpy()] = first.to_numpy()
    coarse = np.append(version_coarse, -1)[view.row_index]
    overall = overall_rate(data)
    group: FeatureGroup = {}
    for name, code in (("semantic_id", semantic), ("coarse_code", coarse)):
        group[name] = code.astype(np.int32)
        is_known = code >= 0
        for feature, key in ((f"{name}_rate", code), (f"user_{name}_rate", pair_codes(data.user, code))):
            shown, clicked = count_before(key, data.timestamp_us, data.clicked)
            group[feature] = np.where(is_known, smooth_rate(shown, clicked, overall, RATE_STRENGTH), np.float32(np.nan))
        same = count_same_clicked(code, clicks, WINDOW)
        group[f"same_{name}_clicked"] = np.where(is_known, same, np.float32(np.nan))
    return group


def _missing(data: RankingTrainingSet, embedding: JoinedView, tags: JoinedView | None) -> FeatureGroup:
    """The age of a product's vectors, the tags that the tagger left empty, and whether the category was predicted.

    Missing images and titles are features of the baseline: the placebo exchanges content among products that miss the
    same modalities.
    """
    age_us = data.timestamp_us - np.append(embedding.timestamp_us, 0)[embedding.row_index]
    vectors = missing.compute_vector_features(age_us, embedding.row_index >= 0, {})
    group: FeatureGroup = {"vector_age_days": vectors["vector_age_days"]}
    if tags is None:
        return group
    labelled = {tag: _is_valid(tags.strings(tag)) for tag in TAGS if tag in tags.versions.column_names}
    catalogue = data.views.get(schema.CATALOGUE_TABLE)
    category = _is_valid(catalogue.strings("category")) if catalogue is not None else None
    return group | missing.compute_tag_features(tags.row_index >= 0, labelled, category)


def _affinity(
    data: RankingTrainingSet, embedding: JoinedView, tags: JoinedView | None, clicks: ClickIndex
) -> FeatureGroup:
    """Affinity of the fused vector and the tags, and the cosines of the image and the title vector alone."""
    widths = {"age": len(data.age_scale.stages), "gender": len(CHILD_GENDERS)}
    ages, genders = (_distribution(tags, f"child_{tag}_distribution", width) for tag, width in widths.items())
    tag_row = tags.row_index if tags is not None else np.full(len(data.timestamp_us), -1)
    fused = embedding.vectors("fused_vector")
    row = _rows_with_vector(embedding, fused)
    means = _click_means(data, clicks, fused, row, (ages, genders), tag_row)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    similarity = _similarities(row, fused, clicks, data.user)
    interest = compute_pair_cosines(row, np.nan_to_num(fused), last, np.nan_to_num(means.vector))
    elapsed_us = np.where(last >= 0, data.timestamp_us - means.time[last] if len(means.time) else 0, 0)
    unknown = np.full(len(row), np.nan, np.float32)
    features = _in_blocks(
        len(row),
        lambda part: compute_affinity(
            similarity[part],
            interest[part],
            (gather_rows(ages, tag_row[part]), gather_rows(means.ages, last[part])),
            (gather_rows(genders, tag_row[part]), gather_rows(means.genders, last[part])),
            elapsed_us[part],
            unknown[part],
            (unknown[part], unknown[part]),
            data.age_scale.bounds,
        ),
    )
    group: FeatureGroup = {
        f"affinity_{name}": values
        for name, values in features.items()
        if name not in IDENTITIES and (tags is not None or name not in ("age_match", "gender_match", "age_gap"))
    }
    for column in ("image_vector", "text_vector"):
        if column in embedding.versions.column_names:
            vectors = embedding.vectors(column)
            row = _rows_with_vector(embedding, vectors)
            group |= _modality_affinity(data, column.removesuffix("_vector"), vectors, row, clicks)
    return group


def _modality_affinity(
    data: RankingTrainingSet, name: str, vectors: Floats, row: Ints, clicks: ClickIndex
) -> FeatureGroup:
    """Cosines of one modality's vector to those of the last clicks, and to the mean of all clicks before."""
    similarity = _similarities(row, vectors, clicks, data.user)
    statistics = _in_blocks(len(row), lambda part: summarize_top_similarities(similarity[part]))
    group: FeatureGroup = {f"{name}_{statistic}": values for statistic, values in statistics.items()}
    means = _click_means(data, clicks, vectors, row, None, row)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    group[f"{name}_interest_cosine"] = compute_pair_cosines(
        row, np.nan_to_num(vectors), last, np.nan_to_num(means.vector)
    )
    return group


def _in_blocks(rows: int, features: Callable[[slice], dict[str, Floats]]) -> dict[str, Floats]:
    """The features of all rows, computed BLOCK rows at a time."""
    pieces = [features(slice(start, start + BLOCK)) for start in range(0, max(rows, 1), BLOCK)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _similarities(row: Ints, vectors: Floats, clicks: ClickIndex, user: Ints) -> Floats:
    """Cosine of each row's candidate to each of its user's last clicks strictly before it [n, HISTORY_LENGTH]."""
    return compute_window_cosines(vectors, row, row[clicks.rows], clicks.before, clicks.end, user, HISTORY_LENGTH)


def _click_means(
    data: RankingTrainingSet,
    clicks: ClickIndex,
    vectors: Floats,
    row: Ints,
    tags: tuple[Floats, Floats] | None,
    tag_row: Ints,
) -> InterestMeans:
    """Decayed means of each user's clicks, just after each click [clicks], in the order of `clicks.rows`."""
    shown, stages = tag_row[clicks.rows], len(data.age_scale.stages)
    ages, genders = (
        (gather_rows(each, shown) for each in tags)
        if tags is not None
        else (np.full((len(shown), width), np.nan, np.float32) for width in (stages, len(CHILD_GENDERS)))
    )
    click = Clicks(gather_rows(vectors, row[clicks.rows]), ages, genders, data.timestamp_us[clicks.rows])
    users = int(data.user.max(initial=-1)) + 1
    return compute_interest_histories(
        click, np.searchsorted(data.user[clicks.rows], np.arange(users + 1)), data.age_scale.bounds
    )


def _distribution(tags: JoinedView | None, column: str, width: int) -> Floats:
    """A distribution of each version [versions, width]; NaN where it is missing or has another width."""
    values = tags.vectors(column) if tags is not None else np.full((0, width), np.nan, np.float32)
    return values if values.shape[1] == width else np.full((len(values), width), np.nan, np.float32)


def _rows_with_vector(embedding: JoinedView, vectors: Floats) -> Ints:
    """The row of `vectors` for each impression [n]; -1 where the vector is missing."""
    has_vector = np.append(~np.isnan(vectors[:, 0]), False)
    return np.where(has_vector[embedding.row_index], embedding.row_index, -1)


def _pick(distribution: Floats, index: Floats) -> Floats:
    """`distribution[i, index[i]]` [n]; NaN where the index is NaN."""
    valid = ~np.isnan(index)
    result = np.full(len(index), np.nan, np.float32)
    result[valid] = distribution[valid, index[valid].astype(np.int64)]
    return result


def _is_valid(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which values are not null [n]."""
    return np.asarray(column.is_valid().to_numpy(), np.bool_)
