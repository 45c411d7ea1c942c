"""Ages and moments as people write them: 90m, 6h, 2d; 2026-03-01T12:00Z."""

import re
from datetime import UTC, datetime, timedelta

from feature_repo.errors import UsageError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_age(text: str) -> timedelta:
    """An age above zero: a number and a unit (s, m, h, d).

    Raises:
        UsageError: it is something else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"not an age: {text!r}; write a number above 0 and a unit: 90m, 6h, 2d")
    try:
        return timedelta(seconds=float(found[1]) * UNITS[found[2]])
    except OverflowError:
        raise UsageError(f"not an age: {text!r} is longer than any calendar; 90m, 6h and 2d are ages") from None


def parse_moment(text: str) -> datetime:
    """A moment in UTC, from ISO 8601 with its offset. Without one it is refused: it could be off by a day.

    Raises:
        UsageError: it is no moment, or has no offset.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"not a time: {text!r}; write it as 2026-03-01T12:00Z") from None
    if moment.tzinfo is None:
        raise UsageError(f"a time without its offset from UTC: {text!r}; append Z for UTC, or +08:00 for China")
    return moment.astimezone(UTC)


def in_words(age: timedelta) -> str:
    """The two largest units of an age above zero: 2d 3h, 3h 20m, 45s."""
    seconds = int(age.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count or first == 3)
