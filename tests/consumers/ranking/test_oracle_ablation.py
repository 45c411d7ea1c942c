"""Each step of the oracle ablation replaces the right features and no others, and raises the AUC."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from consumers.ranking import ablation, ground_truth, lightgbm_ranker, splits
from consumers.ranking.content_features import FeatureGroup, compute_groups, fit_projection
from consumers.ranking.ground_truth import GroundTruth
from consumers.ranking.plan import CEILING
from consumers.ranking.prepared_features import prepare_features
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS
from tests.consumers.ranking.logs import DAY, START, small_log

PRODUCTS, STYLES = 60, 3
START_OF_TEST = START + 18 * DAY


def with_truth() -> tuple[RankingTrainingSet, GroundTruth]:
    """A log whose clicks depend on true ages, genders and styles, but its tags and vectors do not.

    Products n and n + 30 have one style. The truth lists the products in reverse order.
    """
    data = small_log(rows=6000, products=PRODUCTS, days=24)
    generator = np.random.default_rng(1)
    number = np.array([int(name[1:]) for name in data.impressions.column("product_id").to_pylist()])
    product = PRODUCTS - 1 - number
    age, gender = generator.integers(0, len(CHILD_AGES), PRODUCTS), generator.integers(0, len(CHILD_GENDERS), PRODUCTS)
    style = np.tile(generator.normal(size=(PRODUCTS // 2, STYLES)).astype(np.float32), (2, 1))
    taste = generator.normal(size=(int(data.user.max()) + 1, STYLES)).astype(np.float32)
    child = generator.integers(0, len(CHILD_AGES), len(taste))
    liking = np.einsum("ij,ij->i", taste[data.user], style[product])
    gap = (age[product] - child[data.user]).astype(np.float32)
    probability = 1 / (1 + np.exp(1.5 - 1.2 * liking + 0.8 * np.abs(gap)))
    clicked = pa.array((generator.random(len(number)) < probability).astype(np.int8))
    column_index = data.impressions.column_names.index("clicked")
    truth = GroundTruth(
        click_probability=probability,
        features={
            "true_age": age[product].astype(np.float32),
            "true_liking": liking,
            "true_child_months": child[data.user].astype(np.float32),
            "true_age_gap": gap,
            "true_gender_match": np.ones(len(number), np.float32),
        },
        product=product,
        product_age=age,
        product_gender=gender,
        product_category=pa.chunked_array([pa.array([f"true{i % 4}" for i in range(PRODUCTS)])]),
        product_style=style,
        same_product=np.arange(PRODUCTS) % (PRODUCTS // 2),
        product_ids=pa.chunked_array([pa.array([f"p{PRODUCTS - 1 - i}" for i in range(PRODUCTS)])]),
    )
    return replace(data, impressions=data.impressions.set_column(column_index, "clicked", clicked)), truth


DATA, TRUTH = with_truth()
GROUPS = compute_groups(DATA, fit_projection(DATA.views["product_embedding"], START_OF_TEST))
KNOWN = DATA.views["product_tags"].row_index >= 0


def merged(groups: list[FeatureGroup]) -> FeatureGroup:
    return {name: values for group in groups for name, values in group.items()}


PREDICTED = merged(list(GROUPS.values()))
STEPS = {name: merged(groups) for name, groups in ground_truth.replace_inputs(DATA, TRUTH, GROUPS, START_OF_TEST)}


def changed(before: FeatureGroup, after: FeatureGroup) -> set[str]:
    return {name for name in before if name not in after or before[name].tobytes() != after[name].tobytes()}


def test_the_steps_have_the_documented_order() -> None:
    assert tuple(STEPS) == ground_truth.ORACLE_STEPS


def test_true_tags_replace_only_the_tags_and_features_derived_from_them() -> None:
    relations = {f"affinity_{name}" for name in ("age_match", "gender_match", "age_gap")}
    names = changed(PREDICTED, STEPS["true tags"])
    assert names <= set(GROUPS["tags"]) | relations
    assert names >= relations | {f"age_{label}" for label in CHILD_AGES} | {"category_tag"}


def test_a_true_tag_has_probability_1_where_a_tag_was_predicted() -> None:
    step = STEPS["true tags"]
    ages = np.stack([step[f"age_{label}"] for label in CHILD_AGES], axis=1)
    genders = np.stack([step[f"gender_{label}"] for label in CHILD_GENDERS], axis=1)
    np.testing.assert_array_equal(ages[KNOWN].argmax(axis=1), TRUTH.product_age[TRUTH.product[KNOWN]])
    np.testing.assert_array_equal(genders[KNOWN].argmax(axis=1), TRUTH.product_gender[TRUTH.product[KNOWN]])
    assert set(np.unique(ages[KNOWN])) == {0.0, 1.0}
    assert (~KNOWN).any()
    assert np.isnan(ages[~KNOWN]).all()


def test_true_vectors_replace_only_vectors_and_cosines() -> None:
    names = changed(STEPS["true tags"], STEPS["true vectors"])
    assert names <= set(GROUPS["vectors"]) | set(GROUPS["affinity"])
    assert names >= {"vector_0", "affinity_interest_cosine", "affinity_history_cosine_max"}
    assert not any(name.startswith(("image_", "text_")) for name in STEPS["true vectors"])


def test_a_candidate_with_a_clicked_style_has_cosine_1() -> None:
    design, user, time = TRUTH.same_product[TRUTH.product], DATA.user, DATA.timestamp_us
    cosine = STEPS["true vectors"]["affinity_history_cosine_max"]
    clicks: dict[int, list[int]] = {}
    alike = []
    for row, clicked in enumerate(DATA.clicked):
        mine = clicks.setdefault(int(user[row]), [])
        earlier = [other for other in mine if time[other] < time[row]][-50:]
        if KNOWN[row] and design[row] in design[[other for other in earlier if KNOWN[other]]]:
            alike.append(row)
        if clicked:
            mine.append(row)
    assert len(alike) > 100
    np.testing.assert_allclose(cosine[alike], 1, atol=1e-5)


def test_true_tastes_add_four_features_and_change_no_other() -> None:
    before, after = STEPS["true vectors"], STEPS["true tastes"]
    assert changed(before, after) == set()
    added = {"true_liking", "true_child_months", "true_age_gap", "true_gender_match"}
    assert set(after) - set(before) == added


def test_features_stay_missing_where_the_product_had_no_version() -> None:
    for name, step in STEPS.items():
        for feature in ("vector_0", "affinity_history_cosine_max", "affinity_age_match", "age_0-6m"):
            assert np.isnan(step[feature][~KNOWN]).all(), (name, feature)


def test_every_step_raises_the_auc_if_tags_and_vectors_are_uninformative() -> None:
    train = DATA.timestamp_us < START_OF_TEST

    def auc(features: FeatureGroup) -> float:
        scores = lightgbm_ranker.fit_and_score(features, DATA.clicked, train, ~train, seeds=[0])[0]
        clicked = DATA.clicked[~train] == 1
        return float((scores[clicked][:, None] > scores[~clicked]).mean())

    values = [auc(each) for each in (PREDICTED, *STEPS.values())]
    assert all(np.diff(values) > 0.01), values


def test_the_ceiling_of_the_ablation_is_trained_on_the_rows_of_the_other_steps() -> None:
    split = splits.split_rows(DATA, START_OF_TEST - 3 * DAY, START_OF_TEST, 1_000)
    prepared = prepare_features(DATA, split, START_OF_TEST)
    [(count, train)] = ablation._oracle_tasks(prepared, TRUTH)
    rankers = {name: ranker for (_, name, _), ranker in train()}
    assert [*rankers] == [*ground_truth.ORACLE_STEPS, CEILING]
    assert count == len(rankers)
    assert len(split.ablation) == 1_000 < split.train.sum()
    parts = [prepared.binned_base, prepared.bin(TRUTH.features)]
    expected = lightgbm_ranker.fit(parts, [0], split.ablation)
    np.testing.assert_array_equal(rankers[CEILING].scores, expected.scores)
