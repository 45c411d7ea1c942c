"""A stated age as a child age stage."""

from feature_repo.schema import CHILD_AGE_MONTHS, CHILD_AGES


def find_stage(low: float, high: float) -> str | None:
    """The stage that holds all ages from `low` to `high` months; None where they lie in more than one, or in none."""
    for stage, start, end in zip(CHILD_AGES, CHILD_AGE_MONTHS, CHILD_AGE_MONTHS[1:], strict=False):
        if start <= low < high <= end:
            return stage
    return None
