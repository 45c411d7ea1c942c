"""The scale of child ages of a deployment: ordered stages, each with a range of months.

feature_store.yaml names the stages, youngest first; each begins where the one before ends:

    child_age_stages:
      newborn: [0, 3]
      baby: [3, 12]
      toddler: [12, 36]

Without the setting the stages are CHILD_AGES.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from feature_repo.errors import InvalidInputError

CHILD_AGES = ("0-6m", "6-12m", "1-3y", "3-6y", "6-14y")
"""Child age stages, youngest first, of a deployment that configures none, and of generated shops."""
CHILD_AGE_MONTHS = (0, 6, 12, 36, 72, 168)
"""Bounds of these stages in months: stage i is [CHILD_AGE_MONTHS[i], CHILD_AGE_MONTHS[i + 1])."""
SETTING = "child_age_stages"
"""Name of the setting in feature_store.yaml."""


@dataclass(frozen=True)
class AgeScale:
    """The stages of child ages, youngest first."""

    stages: tuple[str, ...]
    """The allowed values of the tag `child_age`."""
    bounds: tuple[float, ...]
    """In months, one more than stages: stage i is [bounds[i], bounds[i + 1])."""


DEFAULT_AGE_SCALE = AgeScale(CHILD_AGES, CHILD_AGE_MONTHS)


def parse_age_scale(value: Any) -> AgeScale:
    """Return the scale that a value of the setting describes.

    Args:
        value: a mapping from stage to [first month, month after the last], youngest first; None gives the default.

    Raises:
        InvalidInputError: it is not such a mapping, has fewer than two stages, a range is empty or negative, or a
            stage does not begin where the one before ends.
    """
    if value is None:
        return DEFAULT_AGE_SCALE
    expected = f"{SETTING}: expected two or more stages, such as `baby: [0, 12]`, youngest first"
    if not isinstance(value, dict) or len(value) < 2:
        raise InvalidInputError(f"{expected}; got {value!r:.80}")
    for stage, months in value.items():
        is_range = isinstance(months, list) and len(months) == 2 and all(map(_is_number, months))
        if not isinstance(stage, str) or not stage.strip() or not is_range or not 0 <= months[0] < months[1]:
            raise InvalidInputError(f"{expected}; stage {stage!r} has {months!r:.80}")
    for (before, (_, end)), (stage, (start, _)) in pairwise(value.items()):
        if start != end:
            raise InvalidInputError(
                f"{SETTING}: stage `{stage}` begins at month {start:g}, but `{before}` ends at {end:g}; each stage "
                "must begin where the one before ends"
            )
    ranges = [*value.values()]
    return AgeScale(tuple(stage.strip() for stage in value), (ranges[0][0], *(end for _, end in ranges)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
