import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from consumers.ranking import bootstrap


def slow(base: np.ndarray, other: np.ndarray, clicked: np.ndarray) -> tuple[float, float]:
    """Difference and its standard error, by every pair of a clicked row and another."""
    yes, no = np.flatnonzero(clicked == 1), np.flatnonzero(clicked == 0)

    def right(scores: np.ndarray) -> np.ndarray:
        return np.array([[float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j]) for j in no] for i in yes])

    won = right(other) - right(base)
    variance = won.mean(axis=1).var(ddof=1) / len(yes) + won.mean(axis=0).var(ddof=1) / len(no)
    return float(won.mean()), float(np.sqrt(variance))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=30))
def test_delong_equals_the_variance_over_all_pairs_of_rows(rows: list[tuple[int, int, int]]) -> None:
    base, other, clicked = (np.array(column, float) for column in zip(*rows, strict=True))
    result = bootstrap.delong_interval(base, other, clicked.astype(int))
    if min(clicked.sum(), len(clicked) - clicked.sum()) < 2:
        assert np.isnan(result.lift)
        return
    lift, error = slow(base, other, clicked)
    half = norm.ppf(0.975) * error
    assert result.lift == pytest.approx(lift)
    assert result.ci95 == pytest.approx((lift - half, lift + half))


def test_delong_narrows_when_rows_are_duplicated() -> None:
    generator = np.random.default_rng(0)
    clicked = generator.integers(0, 2, 200)
    base, other = generator.random(200), generator.random(200) + 0.3 * clicked
    once, twice = (bootstrap.delong_interval(*(np.tile(a, k) for a in (base, other, clicked))) for k in (1, 2))
    width = [result.ci95[1] - result.ci95[0] for result in (once, twice)]
    assert width[1] < 0.75 * width[0]
