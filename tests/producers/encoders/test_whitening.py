"""Fusing an image vector and a title vector, and whitening the result."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import VitrineError
from feature_repo.features.similarity import normalize_rows
from feature_repo.fusion import SAME_PRODUCT, SIMILAR, Vectors, fuse
from producers.encoders import whitening

WIDTH = 6


def units(count: int, seed: int, spread: Vectors | None = None) -> Vectors:
    drawn = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return normalize_rows(drawn if spread is None else drawn * spread + np.float32(2))


def fused_products(count: int) -> Vectors:
    return fuse(units(count, 0), units(count, 1), SAME_PRODUCT)


@given(st.integers(0, 2**16), st.sampled_from([SAME_PRODUCT, SIMILAR]), st.booleans())
def test_a_fused_row_has_unit_length_and_equals_the_only_vector_if_one_is_missing(
    seed: int, weights: tuple[float, float], whitened: bool
) -> None:
    image, text = units(12, seed), units(12, seed + 1)
    image[:4], text[3:8] = np.nan, np.nan  # row 3 has neither
    space = whitening.fit_whitening(fused_products(50)) if whitened else None
    fused = fuse(image, text, weights, space)
    assert np.isnan(fused[3]).all()
    rest = np.delete(fused, 3, axis=0)
    np.testing.assert_allclose(np.linalg.norm(rest, axis=1), 1, rtol=1e-5)
    if not whitened:
        np.testing.assert_allclose(fused[:3], text[:3], rtol=1e-6)
        np.testing.assert_allclose(fused[4:8], image[4:8], rtol=1e-6)
        total = weights[0] * image[8:] + weights[1] * text[8:]
        np.testing.assert_allclose(fused[8:], total / np.linalg.norm(total, axis=1, keepdims=True), rtol=1e-5)


def test_opposite_vectors_have_no_fused_vector() -> None:
    image = units(3, 0)
    assert np.isnan(fuse(image, -image, SAME_PRODUCT)).all()


def test_whitened_products_vary_nearly_equally_in_every_direction() -> None:
    spread = np.array([3, 1, 1, 0.5, 0.5, 0.2], np.float32)
    image, text = units(4000, 0, spread), units(4000, 1, spread)
    plain = fuse(image, text, SAME_PRODUCT)
    space = whitening.fit_whitening(plain)
    assert space is not None
    transformed = (plain - space.centre) @ space.axes
    before, after = (np.linalg.eigvalsh(np.cov(each, rowvar=False)) for each in (plain, transformed))
    assert after[-1] / after[0] < before[-1] / before[0] / 5
    # By definition, each variance v becomes v / (v + SHRINKAGE * mean).
    np.testing.assert_allclose(after, np.sort(before / (before + whitening.SHRINKAGE * before.mean())), rtol=1e-3)
    np.testing.assert_allclose(transformed.mean(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize("products", [2, 11], ids=["two", "one short"])
def test_too_few_products_give_no_whitening(products: int) -> None:
    assert whitening.fit_whitening(fused_products(products)) is None
    assert whitening.fit_whitening(fused_products(12)) is not None


def test_equal_products_give_no_whitening() -> None:
    same = np.repeat(units(1, 0), 40, axis=0)
    assert whitening.fit_whitening(same) is None


def test_the_space_is_stored_beside_the_weights_and_removed_by_a_training_without_one(tmp_path: Path) -> None:
    assert whitening.read_space(tmp_path, WIDTH) is None
    space = whitening.fit_whitening(fused_products(50))
    assert space is not None
    whitening.save_space(space, tmp_path)
    stored = whitening.read_space(tmp_path, WIDTH)
    assert stored is not None
    np.testing.assert_array_equal(stored.axes, space.axes)
    np.testing.assert_array_equal(stored.centre, space.centre)
    whitening.save_space(None, tmp_path)
    assert whitening.read_space(tmp_path, WIDTH) is None


def test_a_broken_space_or_one_of_another_width_is_refused_in_one_line(tmp_path: Path) -> None:
    whitening.save_space(whitening.fit_whitening(fused_products(50)), tmp_path)
    with pytest.raises(VitrineError, match="not of the encoder's 7 dimensions; restore the checkpoint"):
        whitening.read_space(tmp_path, 7)
    file = tmp_path / whitening.FILE
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(VitrineError, match=r"cannot be read \(.*\); restore the checkpoint"):
        whitening.read_space(tmp_path, WIDTH)
