"""Text to image recall, against the slow and obvious way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.encoders.recall import text_to_image_recall


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_equals_sorting_every_pool_by_hand(n: int, designs: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    text, image = unit(chance.normal(size=(n, 5))), unit(chance.normal(size=(n, 5)))
    design = chance.integers(0, designs, n)
    cosine = text @ image.T
    for k, share in text_to_image_recall(text, image, design).items():
        found = 0
        for row in range(n):
            nearest = sorted(range(n), key=lambda other, row=row: -cosine[row, other])[:k]
            found += any(design[other] == design[row] for other in nearest)
        assert share == pytest.approx(found / n)


def test_a_picture_of_the_same_design_from_another_seller_is_right() -> None:
    text = unit(np.array([[1, 0.1], [0, 1], [-1, 0]]))
    image = unit(np.array([[-1, 0.1], [1, 0], [-1, 0]]))
    assert text_to_image_recall(text, image, ["a", "a", "b"], cutoffs=[1])[1] == pytest.approx(1.0)
    assert text_to_image_recall(text, image, ["a", "c", "b"], cutoffs=[1])[1] == pytest.approx(1 / 3)


def test_an_encoder_that_says_the_same_of_everything_finds_nothing() -> None:
    same = unit(np.ones((20, 3)))
    assert text_to_image_recall(same, same, np.arange(20)) == {1: 0.0, 5: 0.0, 10: 0.0}


def test_no_product_is_undefined_and_not_zero() -> None:
    empty = np.empty((0, 4), np.float32)
    assert np.isnan(text_to_image_recall(empty, empty, [])[10])


def test_a_missing_vector_is_refused() -> None:
    rows = unit(np.eye(3))
    missing = rows.copy()
    missing[1] = np.nan
    with pytest.raises(ValueError, match="leave out products without"):
        text_to_image_recall(rows, missing, [1, 2, 3])
    with pytest.raises(ValueError, match="not of the same products"):
        text_to_image_recall(rows, rows, [1, 2])
