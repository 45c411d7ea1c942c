"""The folds of the benchmark on photographs: the same in every process, and near-duplicate names on one side."""

import re

import numpy as np

from tests.benchmarks.photographs.report import draw_interval
from tests.benchmarks.photographs.sets import FOLDS, MIN_SHARED, assign_folds, group_names

NAMES = [
    "Printland PMR1336 Ceramic Mug",
    "Jaipur Print Cotton Floral Bedsheet",
    "Printland PMR1918 Ceramic Mug",
    "红色连衣裙",
    "Printland PMR1918 Ceramic Coffee Mug",
    "红色连衣裙女",
    "Jaipur Print Cotton Floral King Bedsheet",
]


def group_slowly(names: list[str]) -> list[int]:
    words = [set(re.findall(r"[a-z0-9]+|[\u4e00-\u9fff]", name.lower())) for name in names]
    groups = list(range(len(names)))
    for _ in names:  # until nothing changes
        for row, own in enumerate(words):
            for other, theirs in enumerate(words):
                if len(own & theirs) >= MIN_SHARED * len(own | theirs):
                    groups[row] = groups[other] = min(groups[row], groups[other])
    return groups


def test_a_group_is_named_after_its_smallest_row_and_chains_are_followed() -> None:
    assert group_names(NAMES).tolist() == group_slowly(NAMES) == [0, 1, 0, 3, 0, 3, 1]


def test_a_group_is_in_one_fold_and_the_folds_are_about_equal() -> None:
    groups = np.random.default_rng(0).integers(0, 300, 1000)
    groups = np.unique(groups, return_index=True)[1][np.unique(groups, return_inverse=True)[1]]
    folds = assign_folds(groups)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert np.abs(np.bincount(folds, minlength=FOLDS) - 200).max() < 12
    np.testing.assert_array_equal(folds, assign_folds(groups))


def test_an_interval_is_that_of_independent_groups_whatever_their_size() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 400)
    low, high = draw_interval(values, np.zeros(400), np.arange(400))
    width = 1.96 * values.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], [values.mean() - width, values.mean() + width], atol=0.02)
    repeated = draw_interval(np.repeat(values, 5), np.zeros(2000), np.repeat(np.arange(400), 5))
    np.testing.assert_allclose(repeated, [low, high], atol=1e-9)
