"""Text-to-image recall, compared with a slow and obvious implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.encoders.recall import text_to_image_recall


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_recall_equals_that_of_sorting_the_images_of_each_title(n: int, designs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    text, image = unit(rng.normal(size=(n, 5))), unit(rng.normal(size=(n, 5)))
    design = rng.integers(0, designs, n)
    cosine = text @ image.T
    for k, share in text_to_image_recall(text, image, design).items():
        hits = 0
        for row in range(n):
            nearest = sorted(range(n), key=lambda other, row=row: -cosine[row, other])[:k]
            hits += any(design[other] == design[row] for other in nearest)
        assert share == pytest.approx(hits / n)


def test_an_image_of_the_same_design_from_another_seller_is_right() -> None:
    text = unit(np.array([[1, 0.1], [0, 1], [-1, 0]]))
    image = unit(np.array([[-1, 0.1], [1, 0], [-1, 0]]))
    assert text_to_image_recall(text, image, ["a", "a", "b"], cutoffs=[1])[1] == pytest.approx(1.0)
    assert text_to_image_recall(text, image, ["a", "c", "b"], cutoffs=[1])[1] == pytest.approx(1 / 3)


def test_an_encoder_with_one_vector_for_everything_has_recall_0() -> None:
    same = unit(np.ones((20, 3)))
    assert text_to_image_recall(same, same, np.arange(20)) == {1: 0.0, 5: 0.0, 10: 0.0}


def test_recall_without_products_is_nan() -> None:
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
