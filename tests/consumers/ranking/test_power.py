import numpy as np
import pytest

from consumers.ranking.power import EFFECT, TARGET, compute_power, find_detectable_effect
from consumers.ranking.verdict import KEEP, LEVEL, Evidence, decide_verdicts

ERRORS, CORRELATION = np.array([0.004, 0.006]), 0.5
COVARIANCE = np.outer(ERRORS, ERRORS) * [[1, CORRELATION], [CORRELATION, 1]]


def replicate(values: np.ndarray, generator: np.random.Generator, replicates: int = 4000) -> list[np.ndarray]:
    """Differences with these values, whose replicates have exactly the covariance COVARIANCE."""
    drawn = generator.normal(size=(replicates, 2))
    drawn -= drawn.mean(axis=0)
    drawn = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return [
        np.concatenate([[value], column])
        for value, column in zip(values, (values + drawn @ np.linalg.cholesky(COVARIANCE).T).T, strict=True)
    ]


@pytest.mark.parametrize(
    ("effect", "draws", "tolerance"),
    [(0.01, 200, 0.07), *(pytest.param(effect, 4000, 0.025, marks=pytest.mark.slow) for effect in (0.0, 0.01, 0.02))],
)
def test_the_power_is_the_share_of_simulated_measurements_that_keep_the_group(
    effect: float, draws: int, tolerance: float
) -> None:
    generator = np.random.default_rng(1)
    kept = 0
    template = replicate(np.zeros(2), generator)
    for measured in generator.multivariate_normal([effect, effect], COVARIANCE, draws):
        added, over = (each + value for each, value in zip(template, measured, strict=True))
        kept += decide_verdicts({"group": Evidence(added, over, added)})["group"].verdict == KEEP
    assert compute_power(template, effect, LEVEL) == pytest.approx(kept / draws, abs=tolerance)


def test_the_power_of_a_verdict_does_not_depend_on_the_measured_effect() -> None:
    generator = np.random.default_rng(2)
    for values in ([0.0, 0.0], [0.05, 0.001]):
        added, over = replicate(np.array(values), generator)
        verdict = decide_verdicts({"group": Evidence(added, over, added)})["group"]
        assert verdict.power == pytest.approx(compute_power(replicate(np.zeros(2), generator), EFFECT, LEVEL), abs=1e-4)


def test_more_groups_lower_the_power() -> None:
    added, over = replicate(np.zeros(2), np.random.default_rng(3))
    few, many = (decide_verdicts({str(i): Evidence(added, over, added) for i in range(n)})["0"] for n in (1, 6))
    assert many.power < few.power
    assert many.detectable > few.detectable


def test_the_detectable_effect_has_the_target_power() -> None:
    differences = replicate(np.zeros(2), np.random.default_rng(4))
    for tested in (differences, differences[:1]):
        effect = find_detectable_effect(tested, LEVEL)
        assert compute_power(tested, effect, LEVEL) == pytest.approx(TARGET, abs=1e-3)
        assert compute_power(tested, 1.1 * effect, LEVEL) > TARGET


def test_a_difference_that_is_undefined_or_does_not_vary_has_no_power() -> None:
    for replicates in (np.full(20, np.nan), np.zeros(20)):
        assert np.isnan(compute_power([replicates], EFFECT, LEVEL))
        assert np.isnan(find_detectable_effect([replicates], LEVEL))
