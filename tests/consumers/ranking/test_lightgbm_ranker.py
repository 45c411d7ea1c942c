import lightgbm
import numpy as np
import pytest

from consumers.ranking import lightgbm_ranker

GENERATOR = np.random.default_rng(5)
ROWS = 4000
LEFT = {"a": GENERATOR.normal(size=ROWS).astype(np.float32), "c": GENERATOR.integers(-1, 6, ROWS).astype(np.int32)}
RIGHT = {"b": GENERATOR.normal(size=ROWS).astype(np.float32)}
CLICKED = (GENERATOR.random(ROWS) < 1 / (1 + np.exp(1 - LEFT["a"] - 2 * RIGHT["b"]))).astype(np.int8)
TRAIN = np.arange(ROWS) < 3000


def parts() -> list[lightgbm_ranker.BinnedFeatures]:
    return [lightgbm_ranker.bin_features(features, CLICKED, TRAIN, ~TRAIN) for features in (LEFT, RIGHT)]


def directly(rows: np.ndarray, seed: int) -> np.ndarray:
    features = LEFT | RIGHT
    data = lightgbm.Dataset(
        lightgbm_ranker.to_matrix(features, rows), CLICKED[rows], feature_name=list(features),
        categorical_feature=["c"], params=lightgbm_ranker.SETTINGS,
    )  # fmt: skip
    booster = lightgbm.train(lightgbm_ranker.SETTINGS | {"seed": seed}, data, num_boost_round=lightgbm_ranker.ROUNDS)
    return np.asarray(booster.predict(lightgbm_ranker.to_matrix(features, ~TRAIN)))


def test_groups_binned_separately_give_the_same_ranker() -> None:
    ranker = lightgbm_ranker.fit(parts(), seeds=[4])
    np.testing.assert_array_equal(ranker.scores[0], directly(TRAIN, 4))


def test_binned_groups_can_be_reused() -> None:
    both = parts()
    first, alone, again = (lightgbm_ranker.fit(groups, seeds=[1, 2]) for groups in (both, both[:1], both))
    np.testing.assert_array_equal(first.scores, again.scores)
    assert list(alone.gain) == ["a", "c"]


def test_training_uses_only_the_given_rows() -> None:
    some = np.arange(0, 3000, 2)
    ranker = lightgbm_ranker.fit(parts(), seeds=[0], rows=some)
    assert (ranker.scores != lightgbm_ranker.fit(parts(), seeds=[0]).scores).any()
    flipped = CLICKED.copy()
    flipped[1:3000:2] ^= 1  # labels of the other rows
    other = [lightgbm_ranker.bin_features(features, flipped, TRAIN, ~TRAIN) for features in (LEFT, RIGHT)]
    np.testing.assert_array_equal(ranker.scores, lightgbm_ranker.fit(other, seeds=[0], rows=some).scores)


def test_the_gain_shares_sum_to_one() -> None:
    gain = lightgbm_ranker.fit(parts(), seeds=[0]).gain
    assert sum(gain.values()) == pytest.approx(1)
    assert gain["b"] > gain["a"] > gain["c"]
