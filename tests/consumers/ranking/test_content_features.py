"""Names of the content features, which are keys of `importance` in the JSON of `consume lift`."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from consumers.ranking.content_features import COMPONENTS, compute_groups, fit_projection
from feature_repo.age_scale import AgeScale
from feature_repo.errors import CorruptDataError
from feature_repo.features.affinity import SIMILARITY_NAMES
from feature_repo.features.neighbours import NAMES as NEIGHBOURS
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from tests.consumers.ranking.logs import small_log

SUMMARIES = ("history_cosine_max", "history_cosine_mean", "history_cosine_top5")


def test_each_group_has_its_features() -> None:
    data = small_log(rows=600)
    groups = compute_groups(data, fit_projection(data.views["product_embedding"], int(data.timestamp_us[-1])))
    names = {group: set(features) for group, features in groups.items()}
    modality = {f"{name}_{each}" for name in ("image", "text") for each in (*SUMMARIES, "interest_cosine")}
    assert names == {
        "tags": {*(f"age_{label}" for label in CHILD_AGES), *(f"gender_{label}" for label in CHILD_GENDERS)}
        | {"category_tag", "category_tag_probability", "age_match", "age_gap", "gender_match"},
        "codes": {
            form.format(name)
            for name in ("semantic_id", "coarse_code")
            for form in ("{}", "{}_rate", "user_{}_rate", "same_{}_clicked")
        },
        "neighbours": set(NEIGHBOURS),
        "affinity": {f"affinity_{name}" for name in (*SIMILARITY_NAMES, "interest_cosine")}
        | {"affinity_age_match", "affinity_gender_match", "affinity_age_gap"}
        | modality,
        "vectors": {f"vector_{i}" for i in range(COMPONENTS)},
        "missing": {"vector_age_days", "child_age_abstained", "category_abstained", "category_predicted"},
    }


def test_further_tags_are_categories() -> None:
    data = small_log(rows=600)
    view = data.views["product_tags"]
    count = len(view.versions)
    lists = [["fit=slim", "season=a=b"], ["season=warm"], None, []]
    column = pa.array([lists[row % 4] for row in range(count)], pa.list_(pa.string()))
    tags = replace(view, versions=view.versions.append_column("further_tags", column))
    features = compute_groups(data.with_views({"product_tags": tags}), None)["tags"]
    row = np.where(view.row_index < 0, 2, view.row_index % 4)
    for name, values in (("tag_fit", ["slim", None, None, None]), ("tag_season", ["a=b", "warm", None, None])):
        expected = [values[one] for one in row]
        codes = features[name].tolist()
        assert [code < 0 for code in codes] == [value is None for value in expected]
        assert len(set(zip(codes, expected, strict=True))) == len(set(codes)) == len(set(expected))


def test_ages_follow_the_scale_of_the_deployment() -> None:
    data = replace(small_log(rows=600), age_scale=AgeScale(("a", "b", "c", "d", "e"), (0, 1, 2, 3, 4, 200)))
    tags = compute_groups(data, None)["tags"]
    assert {"age_a", "age_e"} < set(tags)
    months = data.impressions.column("child_age_months").cast("float32").to_numpy()
    stage = np.minimum(np.floor(months), 4)
    rows = np.flatnonzero(~np.isnan(months) & (data.views["product_tags"].row_index >= 0))
    expected = [tags["age_" + "abcde"[int(stage[row])]][row] for row in rows]
    np.testing.assert_array_equal(tags["age_match"][rows], expected)
    wrong = replace(data, age_scale=AgeScale(("a", "b"), (0, 1, 200)))
    with pytest.raises(CorruptDataError, match=r"has 5 stages and child_age_stages in .* has 2"):
        compute_groups(wrong, None)
