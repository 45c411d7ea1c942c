import numpy as np
import pytest

from consumers.ranking.verdict import (
    DROP,
    KEEP,
    LEVEL,
    MIN_WORTH,
    NOT_PROVEN,
    Evidence,
    decide_verdicts,
    holm_correction,
)


def difference(value: float, error: float) -> np.ndarray:
    """A difference whose bootstrap replicates have exactly the standard error `error`."""
    spread = np.linspace(-1, 1, 101)
    return np.concatenate([[value], value + error * spread / spread.std(ddof=1)])


def evidence(added: float, over_placebo: float, removed: float, error: float = 0.0005) -> Evidence:
    return Evidence(difference(added, error), difference(over_placebo, error), difference(removed, error))


def test_a_group_is_kept_only_if_it_lifts_more_than_its_placebo() -> None:
    result = decide_verdicts(
        {"content": evidence(0.01, 0.009, 0.004), "identity in disguise": evidence(0.01, 0.0002, 0.004)}
    )
    assert result["content"].verdict == KEEP
    assert result["identity in disguise"].verdict == NOT_PROVEN


def test_a_group_is_dropped_only_if_it_is_shown_to_be_worthless() -> None:
    result = decide_verdicts({"useless": evidence(0, 0, 0, error=0.0001), "unsure": evidence(0, 0, 0, error=0.002)})
    assert result["useless"].verdict == DROP
    assert result["unsure"].verdict == NOT_PROVEN
    assert decide_verdicts({"needed": evidence(0, 0, 2 * MIN_WORTH, error=0.0001)})["needed"].verdict == NOT_PROVEN


def test_the_correction_raises_p_with_the_number_of_groups() -> None:
    barely = evidence(0.00105, 0.00105, 0, error=0.0005)  # one-sided p of 0.018
    assert decide_verdicts({"alone": barely})["alone"].verdict == KEEP
    among = decide_verdicts({"one": barely} | {f"other {i}": evidence(0, 0, 0) for i in range(5)})
    assert among["one"].verdict == NOT_PROVEN
    assert among["one"].p == pytest.approx(6 * 0.0179, rel=0.01)


def test_holm_multiplies_by_rank_and_keeps_the_order() -> None:
    assert holm_correction({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm_correction({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


@pytest.mark.parametrize("draws", [60, pytest.param(400, marks=pytest.mark.slow)])
def test_the_share_of_false_keeps_is_at_most_the_level(draws: int) -> None:
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(draws):
        groups = {str(i): evidence(*generator.normal(0, 0.0005, 3)) for i in range(6)}
        wrong += any(result.verdict == KEEP for result in decide_verdicts(groups).values())
    assert wrong / draws <= LEVEL


def test_undefined_evidence_is_not_proven() -> None:
    nothing = np.full(50, np.nan)
    assert decide_verdicts({"a": Evidence(nothing, nothing, nothing)})["a"].verdict == NOT_PROVEN
