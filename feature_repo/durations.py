"""Ages and moments as people write them: 90m, 6h, 2d; 2026-03-01T12:00Z."""

import re
from datetime import UTC, datetime, timedelta

from feature_repo.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=36_500)
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""Bounds of what is meant in earnest, so that no sum of a moment and two ages leaves Python's calendar."""


def parse_duration(text: str) -> timedelta:
    """An age above zero, at most LONGEST: a number and a unit (s, m, h, d).

    Raises:
        UsageError: it is something else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if seconds > LONGEST.total_seconds():
        raise UsageError(f"not an age: {text!r} is more than {LONGEST.days:,} days; 90m, 6h and 2d are ages")
    age = timedelta(seconds=seconds)
    if not age:
        raise UsageError(f"not an age: {text!r}; write a number above 0 and a unit: 90m, 6h, 2d")
    return age


def parse_timestamp(text: str) -> datetime:
    """A moment in UTC, from ISO 8601 with its offset. Without one it is refused: it could be off by a day.

    Raises:
        UsageError: it is no moment, has no offset, or is not in [EARLIEST, LATEST).
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"not a time: {text!r}; write it as 2026-03-01T12:00Z") from None
    if moment.tzinfo is None:
        raise UsageError(f"a time without its offset from UTC: {text!r}; append Z for UTC, or +08:00 for China")
    if not EARLIEST <= moment < LATEST:
        raise UsageError(f"not a time of any shop: {text!r}; wanted one of the years 1970 to 2999")
    return moment.astimezone(UTC)


def format_duration(age: timedelta) -> str:
    """The two largest units of an age above zero: 2d 3h, 3h 20m, 45s."""
    seconds = int(age.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count or first == 3)
