"""Names of the content features, which are keys of `importance` in the JSON of `consume lift`."""

from consumers.ranking.content_features import COMPONENTS, compute_groups, fit_projection
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
