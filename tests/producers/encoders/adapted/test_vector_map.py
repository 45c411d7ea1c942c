"""Maps between the spaces of two encoders recover what relates them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_repo.features.similarity import normalize_rows
from producers.encoders.adapted.vector_map import MapKind, VectorMap, fit_map

RNG = np.random.default_rng(0)


def unit(rows: int, width: int) -> NDArray[np.float32]:
    return normalize_rows(RNG.normal(size=(rows, width)).astype(np.float32))


def mean_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float((one * other).sum(axis=1).mean())


def test_a_rotation_is_recovered_by_every_affine_map_on_vectors_that_it_was_not_fitted_on() -> None:
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0].astype(np.float32)
    source = unit(600, 8)
    for kind in (MapKind.PROCRUSTES, MapKind.RIDGE, MapKind.LOW_RANK):
        fitted = fit_map(kind, source[:500], (source @ rotation)[:500], seed=0)
        assert mean_cosine(fitted.transform(source[500:]), (source @ rotation)[500:]) > 0.9999, kind


def test_procrustes_keeps_distances_where_ridge_follows_a_stretch() -> None:
    source = unit(600, 6)
    target = normalize_rows(source * np.array([4, 2, 1, 1, 0.5, 0.2], np.float32))
    rotated, stretched = (fit_map(kind, source, target, seed=0) for kind in (MapKind.PROCRUSTES, MapKind.RIDGE))
    np.testing.assert_allclose(rotated.matrix @ rotated.matrix.T, np.eye(6), atol=1e-5)
    assert mean_cosine(stretched.transform(source), target) > mean_cosine(rotated.transform(source), target) + 0.01


@pytest.mark.parametrize(("narrow", "wide"), [(5, 9), (9, 5)])
def test_spaces_of_different_widths_are_mapped_by_a_part_of_a_rotation(narrow: int, wide: int) -> None:
    source = unit(300, narrow)
    rotation = np.linalg.qr(RNG.normal(size=(9, 9)))[0].astype(np.float32)[:narrow, :wide]
    fitted = fit_map(MapKind.PROCRUSTES, source, normalize_rows(source @ rotation), seed=0)
    scale = np.linalg.svd(fitted.matrix, compute_uv=False)
    np.testing.assert_allclose(scale, 1, atol=1e-5)
    assert fitted.transform(source).shape == (300, wide)


def test_a_low_rank_map_has_the_directions_that_carry_the_target() -> None:
    source = unit(400, 12)
    target = normalize_rows(source @ RNG.normal(size=(12, 2)) @ RNG.normal(size=(2, 10)))
    fitted = fit_map(MapKind.LOW_RANK, source, target.astype(np.float32), seed=0)
    assert np.linalg.matrix_rank(fitted.matrix, tol=1e-4) == 2


def test_a_network_bends_where_an_affine_map_cannot() -> None:
    source = unit(2000, 3)
    target = normalize_rows(np.abs(source) + np.float32(0.01))
    affine, network = (fit_map(kind, source[:1500], target[:1500], seed=0) for kind in (MapKind.RIDGE, MapKind.MLP))
    before, after = (mean_cosine(each.transform(source[1500:]), target[1500:]) for each in (affine, network))
    assert 1 - after < (1 - before) / 3


def test_a_vector_that_is_missing_stays_missing_and_others_have_unit_length() -> None:
    source = unit(50, 4)
    source[3] = np.nan
    fitted = fit_map(MapKind.MLP, unit(50, 4), unit(50, 4), seed=0)
    mapped = fitted.transform(source)
    assert np.flatnonzero(np.isnan(mapped).any(axis=1)).tolist() == [3]
    np.testing.assert_allclose(np.linalg.norm(np.delete(mapped, 3, axis=0), axis=1), 1, atol=1e-5)


def test_arrays_that_do_not_fit_each_other_are_refused() -> None:
    arrays = fit_map(MapKind.RIDGE, unit(20, 3), unit(20, 3), seed=0).to_arrays("text.")
    assert VectorMap.from_arrays(arrays, "text.").matrix.shape == (3, 3)
    with pytest.raises(ValueError, match="do not fit"):
        VectorMap.from_arrays(arrays | {"text.offset": np.zeros(4, np.float32)}, "text.")
    with pytest.raises(KeyError):
        VectorMap.from_arrays(arrays, "image.")
