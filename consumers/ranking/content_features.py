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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.baseline_features import RATE_STRENGTH
from consumers.ranking.click_counts import ClickIndex, count_before, index_clicks, smooth_rate
from consumers.ranking.identity_controls import WINDOW, count_same_clicked
from consumers.ranking.training_set import JoinedView, TrainingSet, encode_values, gather_rows
from feature_repo import schema
from feature_repo.features import missing
from feature_repo.features.affinity import compute_affinity, summarize_top_similarities
from feature_repo.features.ages import compute_expected_stage, find_child_stage
from feature_repo.features.interest import Clicks, InterestMeans, compute_interest_histories
from feature_repo.features.neighbours import NAMES as NEIGHBOURS
from feature_repo.features.similarity import compute_pair_cosines, compute_window_cosines
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, HISTORY_LENGTH, TAGS

FeatureGroup = dict[str, NDArray[Any]]
"""Feature name to float32 or int32 [n], as `rankers.Features`."""
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

COMPONENTS = 8
"""Dimensions that the raw vector keeps."""
BLOCK = 10_000
UNISEX = CHILD_GENDERS.index("unisex")
IDENTITIES = ("same_product", "same_code", "same_coarse_code")
"""Of the affinity features: the first is the baseline's (`twins.py`), the others belong to the codes."""


def compute_groups(data: TrainingSet, projection: Floats | None) -> dict[str, FeatureGroup]:
    """Every group that the joined views allow.

    Args:
        data: the joined log.
        projection: of the fused vector, as `fit_projection` gives it [d, COMPONENTS]; None leaves `vectors` out.
    """
    groups: dict[str, FeatureGroup] = {}
    clicks = index_clicks(data.user, data.time, data.clicked)
    embedding, tags = data.views.get(schema.EMBEDDING_TABLE), data.views.get(schema.TAGS_TABLE)
    if tags is not None:
        groups["tags"] = _tags(data, tags)
    if schema.CODES_TABLE in data.views:
        groups["codes"] = _codes(data, data.views[schema.CODES_TABLE], clicks)
    if schema.NEIGHBOURS_TABLE in data.views:
        groups["neighbours"] = _neighbours(data.views[schema.NEIGHBOURS_TABLE])
    if embedding is not None:
        groups["affinity"] = _affinity(data, embedding, tags, clicks)
        if projection is not None:
            groups["vectors"] = _vectors(embedding, projection)
        groups["missing"] = _missing(data, embedding, tags)
    return groups


def fit_projection(embedding: JoinedView, before: int) -> Floats:
    """Principal axes of the fused vectors of products there before `before` (microseconds) [d, COMPONENTS]."""
    vectors = embedding.vectors("fused_vector")
    vectors = vectors[(embedding.since < before) & ~np.isnan(vectors[:, 0])]
    _, axes = np.linalg.eigh(np.cov(vectors, rowvar=False, dtype=np.float64))
    return axes[:, ::-1][:, :COMPONENTS].astype(np.float32)


def _tags(data: TrainingSet, tags: JoinedView) -> FeatureGroup:
    age = gather_rows(tags.vectors("child_age_distribution"), tags.row)
    gender = gather_rows(tags.vectors("child_gender_distribution"), tags.row)
    group: FeatureGroup = {f"age_{label}": age[:, i] for i, label in enumerate(CHILD_AGES) if age.shape[1] > 1}
    group |= {f"gender_{label}": gender[:, i] for i, label in enumerate(CHILD_GENDERS) if gender.shape[1] > 1}
    group["category_tag"] = encode_values(tags.strings("category")).astype(np.int32)
    group["category_tag_probability"] = tags.numbers("category_probability")
    known = data.impressions.schema.names
    if "child_age_months" in known and age.shape[1] > 1:
        stage = find_child_stage(data.impressions.column("child_age_months").cast("float32").to_numpy())
        group["age_match"] = _pick(age, stage)
        group["age_gap"] = compute_expected_stage(age) - stage
    if "child_gender" in known and gender.shape[1] > 1:
        column = data.impressions.column("child_gender").to_numpy(zero_copy_only=False)
        wanted = np.full(len(column), np.nan, np.float32)
        for index, label in enumerate(CHILD_GENDERS):
            wanted[column == label] = index
        group["gender_match"] = _pick(gender, wanted) + np.where(wanted == UNISEX, 0, gender[:, UNISEX])
    return group


def _affinity(data: TrainingSet, embedding: JoinedView, tags: JoinedView | None, clicks: ClickIndex) -> FeatureGroup:
    """`affinity` of the fused vector and the tags, and the same cosines of the picture and of the title alone."""
    ages, genders = (_distribution(tags, f"child_{tag}_distribution", len(labels)) for tag, labels in _TAGS)
    tag_row = tags.row if tags is not None else np.full(len(data.time), -1)
    fused = embedding.vectors("fused_vector")
    row = _with_vector(embedding, fused)
    means = _means(data, clicks, fused, row, (ages, genders), tag_row)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    similarity = _similarities(row, fused, clicks, data.user)
    interest = compute_pair_cosines(row, np.nan_to_num(fused), last, np.nan_to_num(means.vector))
    passed = np.where(last >= 0, data.time - means.time[last] if len(means.time) else 0, 0)
    blank = np.full(len(row), np.nan, np.float32)
    found = _in_blocks(
        len(row),
        lambda part: compute_affinity(
            similarity[part],
            interest[part],
            (gather_rows(ages, tag_row[part]), gather_rows(means.ages, last[part])),
            (gather_rows(genders, tag_row[part]), gather_rows(means.genders, last[part])),
            passed[part],
            blank[part],
            (blank[part], blank[part]),
        ),
    )
    group: FeatureGroup = {
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


def _one_modality(data: TrainingSet, name: str, vectors: Floats, row: Ints, clicks: ClickIndex) -> FeatureGroup:
    similarity = _similarities(row, vectors, clicks, data.user)
    found = _in_blocks(len(row), lambda part: summarize_top_similarities(similarity[part]))
    group: FeatureGroup = {f"{name}_{what}": values for what, values in found.items()}
    means = _means(data, clicks, vectors, row, None, row)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    group[f"{name}_interest_cosine"] = compute_pair_cosines(
        row, np.nan_to_num(vectors), last, np.nan_to_num(means.vector)
    )
    return group


def _in_blocks(rows: int, features: Callable[[slice], dict[str, Floats]]) -> dict[str, Floats]:
    """The features of all rows, a block at a time: what is computed for each row and click stays in the cache."""
    pieces = [features(slice(start, start + BLOCK)) for start in range(0, max(rows, 1), BLOCK)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _similarities(row: Ints, vectors: Floats, clicks: ClickIndex, user: Ints) -> Floats:
    """Cosine of each row's candidate to each of its user's last clicks strictly before it [n, HISTORY_LENGTH]."""
    return compute_window_cosines(vectors, row, row[clicks.rows], clicks.before, clicks.end, user, HISTORY_LENGTH)


def _means(
    data: TrainingSet, clicks: ClickIndex, vectors: Floats, row: Ints, tags: tuple[Floats, Floats] | None, tag_row: Ints
) -> InterestMeans:
    """What each user's clicks so far say of the user, just after each click [clicks]."""
    of_clicks = clicks.rows
    shown = tag_row[of_clicks]
    ages, genders = (
        (gather_rows(each, shown) for each in tags)
        if tags is not None
        else (np.full((len(shown), len(labels)), np.nan, np.float32) for _, labels in _TAGS)
    )
    click = Clicks(gather_rows(vectors, row[of_clicks]), ages, genders, data.time[of_clicks])
    users = int(data.user.max(initial=-1)) + 1
    return compute_interest_histories(click, np.searchsorted(data.user[of_clicks], np.arange(users + 1)))


def _vectors(embedding: JoinedView, projection: Floats) -> FeatureGroup:
    projected = gather_rows(embedding.vectors("fused_vector") @ projection, embedding.row)
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


def _codes(data: TrainingSet, view: JoinedView, clicks: ClickIndex) -> FeatureGroup:
    """The semantic ID and its first code as categories, and by each: what it earned before, and from this user.

    Args:
        data: the joined log.
        view: product_codes.
        clicks: the log's.
    """
    semantic = encode_values(view.strings("semantic_id"))
    first = pc.list_element(view.versions.column("codes").filter(pc.is_valid(view.versions.column("codes"))), 0)
    coarse_of_version = np.full(len(view.versions), -1, np.int64)
    coarse_of_version[view.versions.column("codes").is_valid().to_numpy()] = first.to_numpy()
    coarse = np.append(coarse_of_version, -1)[view.row]
    everyone = np.zeros(len(semantic), np.int64)
    shown, clicked = count_before(everyone, data.time, data.clicked)
    overall = smooth_rate(shown, clicked, np.zeros(len(semantic)), 1e-9)
    group: FeatureGroup = {}
    for name, code in (("semantic_id", semantic), ("coarse_code", coarse)):
        group[name] = code.astype(np.int32)
        shown, clicked = count_before(code, data.time, data.clicked)
        group[f"{name}_rate"] = _known(smooth_rate(shown, clicked, overall, RATE_STRENGTH), code)
        pair = data.user * (int(code.max(initial=0)) + 2) + code + 1
        shown, clicked = count_before(pair, data.time, data.clicked)
        group[f"user_{name}_rate"] = _known(smooth_rate(shown, clicked, overall, RATE_STRENGTH), code)
        group[f"same_{name}_clicked"] = _known(count_same_clicked(code, clicks, WINDOW), code)
    return group


def _neighbours(view: JoinedView) -> FeatureGroup:
    """What product_neighbours says, as it is."""
    return {name: view.numbers(name) for name in NEIGHBOURS}


def _missing(data: TrainingSet, embedding: JoinedView, tags: JoinedView | None) -> FeatureGroup:
    """What is not known of a product: how old its vectors are, where the tagger abstains, what it says instead.

    That a picture or a title is missing the baseline knows already, for the placebo swaps among products of the same.
    """
    known = embedding.row >= 0
    age = data.time - np.append(embedding.since, 0)[embedding.row]
    # Of the modalities only the age: which are missing the baseline knows already.
    group: FeatureGroup = {"vector_age_days": missing.compute_vector_features(age, known, {})["vector_age_days"]}
    if tags is None:
        return group
    labelled = {tag: ~_null(tags.strings(tag)) for tag in TAGS if tag in tags.versions.column_names}
    catalogue = data.views.get(schema.CATALOGUE_TABLE)
    told = ~_null(catalogue.strings("category")) if catalogue is not None else None
    return group | missing.compute_tag_features(tags.row >= 0, labelled, told)


def _known(values: NDArray[np.float32], code: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.where(code >= 0, values, np.float32(np.nan))


def _null(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy(), np.bool_)
