"""Durations and timestamps on command lines: 90m, 6h, 2d; 2026-03-01T12:00Z."""

import re
from datetime import UTC, datetime, timedelta

from feature_repo.errors import UsageError

SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=36_500)
"""The longest duration, inclusive."""
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""Bounds of timestamps, [EARLIEST, LATEST). A timestamp plus or minus two durations stays in Python's calendar."""


def parse_duration(text: str) -> timedelta:
    """Parse a number and one unit (s, m, h or d), for example "90m" or "1.5h". Surrounding white space is ignored.

    The unit must be in lower case and follow the number directly.

    Raises:
        UsageError: it is something else, such as a number without a unit or "2d 3h", or is not in (0, LONGEST].
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    seconds = float(match[1]) * SECONDS_PER_UNIT[match[2]] if match else 0.0
    if seconds > LONGEST.total_seconds():
        raise UsageError(
            f"not a duration: {text!r} is more than {LONGEST.days:,} days; write for example 90m, 6h or 2d"
        )
    duration = timedelta(seconds=seconds)
    if not duration:
        raise UsageError(f"not a duration: {text!r}; write a number above 0 and a unit: 90m, 6h, 2d")
    return duration


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp with an offset, and return it in UTC. Surrounding white space is ignored.

    Raises:
        UsageError: it is something else, has no offset (without one, it could be off by a day), or is not in
            [EARLIEST, LATEST). A date without a time has no offset.
    """
    try:
        timestamp = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"not a timestamp: {text!r}; write it as 2026-03-01T12:00Z") from None
    if timestamp.tzinfo is None:
        raise UsageError(f"timestamp without an offset from UTC: {text!r}; append Z for UTC, or +08:00 for China")
    if not EARLIEST <= timestamp < LATEST:
        raise UsageError(f"timestamp out of range: {text!r}; expected one in the years 1970 to 2999")
    return timestamp.astimezone(UTC)


def format_duration(duration: timedelta) -> str:
    """Return the two largest units of a duration that is not negative, rounded down: "2d 3h", "3h 20m", "45s".

    The second unit is left out if its number is 0: two days and five minutes are "2d". Less than a second is "0s".
    """
    seconds = int(duration.total_seconds())
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count or first == 3)
