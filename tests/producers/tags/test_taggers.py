"""Splits, labels, calibration, and the predictions of a tagger for its own training products."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.age_scale import DEFAULT_AGE_SCALE
from feature_repo.schema import CHILD_AGES
from producers.tags import labels, split, stacking, variants
from producers.tags import tagger as tagger_module
from producers.tags.calibration import apply_temperature, fit_temperature
from producers.tags.embedding_rows import fix_vector_width
from producers.tags.stacking import StackedTagger, combine_taggers
from producers.tags.tagger import Tagger, fit_tagger
from tests.producers.tags import world

Row = dict[str, str | None]
VALUES = labels.list_tag_values(DEFAULT_AGE_SCALE)


def checked(rows: list[Row], known: set[str]) -> tuple[list[dict[str, str]], list[tuple[str, str]]]:
    usable, refused = labels.check_labels(pa.Table.from_pylist(rows), known, VALUES)
    return usable.to_pylist(), [(row.row_id, row.reason) for row in refused]


@given(st.lists(st.text(max_size=5), min_size=1, max_size=60))
def test_a_group_is_on_one_side_and_in_one_fold(groups: list[str]) -> None:
    sides, folds = split.assign_splits(groups), split.assign_folds(groups)
    assert len(set(zip(groups, sides.tolist(), strict=True))) == len(set(groups))
    assert len(set(zip(groups, folds.tolist(), strict=True))) == len(set(groups))
    assert set(folds.tolist()) <= set(range(split.FOLDS))


@given(st.lists(st.text(max_size=5), min_size=1, max_size=30), st.randoms())
def test_the_side_of_a_group_does_not_depend_on_other_groups(groups: list[str], chance: object) -> None:
    alone = {group: split.assign_splits([group])[0] for group in groups}
    assert split.assign_splits(groups).tolist() == [alone[group] for group in groups]


def test_about_80_percent_of_the_groups_train_and_the_others_test() -> None:
    sides = split.assign_splits([f"group {number}" for number in range(20_000)])
    assert np.mean(sides == split.TRAIN) == pytest.approx(0.8, abs=0.02)
    assert np.mean(sides == split.TEST) == pytest.approx(0.2, abs=0.02)


def test_invalid_labels_are_refused_with_the_reason() -> None:
    def label(product: str | None, tag: str | None, value: str | None, group: str | None = "g") -> Row:
        return {"product_id": product, "tag": tag, "value": value, "group": group}

    usable, refused = checked(
        [
            label("a", "child_age", "1-3y"),
            label("a", "child_age", "1-3y"),
            label("a", "child_age", "3-6y"),
            label("a", "category", "toys", group="h"),
            label("b", "child_gender", "女孩"),
            label("b", "colour=dark", "red"),
            label("b", " ", "red"),
            label("b", "colour", "red"),
            label("b", "category", "  "),
            label(None, "category", "toys"),
            label("ghost", "category", "toys"),
            label("b", "child_gender", "girl", group=None),
        ],
        {"a", "b"},
    )
    assert usable == [
        {"product_id": "a", "tag": "child_age", "value": "1-3y", "group": "group g"},
        {"product_id": "b", "tag": "colour", "value": "red", "group": "group g"},
    ]
    assert refused == [
        ("a", "repeats an earlier label"),
        ("a", "contradicts an earlier label"),
        ("a", "differs from the group of an earlier label of the product"),
        ("b", "not a child_gender: it must be one of boy, girl, unisex"),
        ("b", "a tag must not hold `=`"),
        ("b", "no tag"),
        ("b", "no value"),
        ("row 10", "unknown product, or product without vectors"),
        ("ghost", "unknown product, or product without vectors"),
        ("b", "differs from the group of an earlier label of the product"),
    ]


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray) -> float:
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    total = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return total


def test_temperature_scaling_calibrates_an_overconfident_classifier() -> None:
    chance = np.random.default_rng(0)
    calibrated = chance.normal(size=(20_000, 4))
    probabilities = apply_temperature(calibrated, 1.0)
    truth = (probabilities.cumsum(axis=1) < chance.random((len(calibrated), 1))).sum(axis=1).clip(max=3)
    overconfident = calibrated * 3.0
    temperature = fit_temperature(overconfident[:10_000], truth[:10_000])
    assert temperature == pytest.approx(3.0, rel=0.1)
    before = expected_calibration_error(apply_temperature(overconfident[10_000:], 1.0), truth[10_000:])
    after = expected_calibration_error(apply_temperature(overconfident[10_000:], temperature), truth[10_000:])
    assert before > 0.15
    assert after < 0.02


def test_calibration_leaves_out_labels_that_the_classifier_cannot_predict() -> None:
    log_probabilities = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))
    blind = np.column_stack([log_probabilities, [-np.inf, -np.inf]])
    assert fit_temperature(blind, np.array([2, -1])) == 1.0
    assert apply_temperature(blind, 2.0)[:, 2].tolist() == [0.0, 0.0]


def test_a_missing_vector_is_nan_and_its_flag_is_0() -> None:
    rows = fix_vector_width(world.embeddings(world.catalogue(4))).slice(5, 2)
    present, missing = variants.stack_vectors(rows, variants.COLUMNS[variants.IMAGE_TOWER])
    assert present[:-1].tolist() == rows["image_vector"][0].as_py()
    assert np.isnan(missing[:-1]).all()
    assert (present[-1], missing[-1]) == (1, 0)


def test_the_tagger_uses_all_vectors_and_the_words_of_the_title() -> None:
    rows = labelled_rows(40)
    assert variants.make_features(variants.VECTORS).fit_transform(rows).shape[1] == 3 * world.WIDTH + 2
    assert {part.variant for part in fit_stacked(rows).parts} >= {variants.VECTORS, variants.BAG_OF_WORDS}


def labelled_rows(designs: int, tag: str = "child_age") -> pa.Table:
    products = world.catalogue(designs)
    rows = fix_vector_width(world.embeddings(products))
    numbers = [int(product[1:]) for product in rows["product_id"].to_pylist()]
    titles = dict(zip(products["product_id"].to_pylist(), products["title"].to_pylist(), strict=True))
    rows = rows.append_column("title", pa.array([titles[product] for product in rows["product_id"].to_pylist()]))
    rows = rows.append_column("value", pa.array([world.truth(number // 2)[tag] for number in numbers]))
    return rows.append_column("group", pa.array([f"design {number // 2}" for number in numbers]))


def fit_stacked(rows: pa.Table) -> StackedTagger:
    parts = [fit_tagger(variant, rows, values=CHILD_AGES) for variant in stacking.PARTS]
    assert all(parts)
    return combine_taggers(tuple(part for part in parts if part), rows)


@pytest.mark.parametrize("is_stacked", [False, True])
def test_training_products_are_predicted_by_classifiers_that_were_not_trained_on_them(
    monkeypatch: pytest.MonkeyPatch, is_stacked: bool
) -> None:
    # Weak regularization, so that the classifiers memorize their training products.
    monkeypatch.setattr(tagger_module, "REGULARISATION_GRID", (10.0,))
    monkeypatch.setattr(stacking, "REGULARISATION", 10.0)
    rows = labelled_rows(120)
    noise = np.random.default_rng(1).permutation(len(rows))  # labels are random: only memorized ones can be predicted
    rows = rows.set_column(rows.schema.get_field_index("value"), "value", rows["value"].take(pa.array(noise)))
    tagger = fit_stacked(rows) if is_stacked else fit_tagger(variants.VECTORS, rows, values=CHILD_AGES)
    assert tagger is not None
    groups = rows["group"].to_pylist()
    train = split.assign_splits(groups) == split.TRAIN
    truth = np.array([CHILD_AGES.index(value) for value in rows["value"].to_pylist()])
    memorized = tagger.predict_probabilities(rows).argmax(axis=1) == truth
    fold = np.where(train, split.assign_folds(groups), -1)
    held_out = tagger.predict_probabilities(rows, fold).argmax(axis=1) == truth
    if not is_stacked:  # the second classifier learns from predictions that memorize nothing
        assert memorized[train].mean() > 0.6
    assert held_out[train].mean() < 0.3
    assert (held_out[~train] == memorized[~train]).all()


def test_a_stacked_tagger_predicts_new_products_better_than_each_of_its_parts() -> None:
    rows = labelled_rows(600)
    stacked = fit_stacked(rows)
    test = rows.filter(pa.array(split.assign_splits(rows["group"].to_pylist()) == split.TEST))
    truth = np.array([CHILD_AGES.index(value) for value in test["value"].to_pylist()])

    def loss(tagger: Tagger | StackedTagger) -> float:
        probabilities = tagger.predict_probabilities(test)
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(test)), abs=1e-5)
        return -float(np.log(probabilities[np.arange(len(test)), truth]).mean())

    assert loss(stacked) < 0.95 * min(loss(part) for part in stacked.parts)


@pytest.mark.parametrize("variant", [variants.IMAGE_TOWER, variants.TEXT_TOWER, variants.BAG_OF_WORDS])
def test_a_product_without_image_or_title_gets_the_label_shares_of_such_products(variant: str) -> None:
    rows = labelled_rows(600)
    tagger = fit_tagger(variant, rows, values=CHILD_AGES)
    assert tagger is not None
    without = rows.filter(pc.invert(rows["has_image" if variant == variants.IMAGE_TOWER else "has_text"]))
    train = without.filter(pa.array(split.assign_splits(without["group"].to_pylist()) == split.TRAIN))
    shares = [train["value"].to_pylist().count(age) / len(train) for age in CHILD_AGES]
    assert tagger.predict_probabilities(without) == pytest.approx(np.tile(shares, (len(without), 1)), abs=0.08)


def test_a_label_that_is_not_in_the_training_split_has_probability_zero() -> None:
    rows = labelled_rows(60)
    rows = rows.filter(pa.array([value != "6-12m" for value in rows["value"].to_pylist()]))
    tagger = fit_stacked(rows)
    for each in (tagger, *tagger.parts):
        assert each.labels == CHILD_AGES
        probabilities = each.predict_probabilities(rows)
        assert (probabilities[:, 1] == 0).all()
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(rows)))


def test_a_tag_with_a_single_label_cannot_be_learned() -> None:
    rows = labelled_rows(60)
    rows = rows.filter(pa.array([value == "6-12m" for value in rows["value"].to_pylist()]))
    assert fit_tagger(variants.VECTORS, rows, values=CHILD_AGES) is None
