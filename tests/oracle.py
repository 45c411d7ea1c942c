"""Slow, obvious functions with which the fast code must agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Version:
    """One version of an entity; `key` holds one value per join key column."""

    key: tuple[object, ...]
    event: datetime | None
    created: datetime | None = None


def as_of(
    versions: Sequence[Version],
    key: tuple[object, ...],
    at: datetime | None,
    *,
    ttl: timedelta | None = None,
    created_by_then: bool = False,
    created_before: datetime | None = None,
) -> int:
    """Return the position of the version of `key` that was valid at `at`; -1 if there is none."""
    if at is None or any(part is None for part in key):
        return -1
    held = [
        (version.event, version.created is not None, version.created, position)
        for position, version in enumerate(versions)
        if version.key == key
        and version.event is not None
        and version.event <= at
        and (not ttl or version.event >= at - ttl)
        and (not created_by_then or (version.created is not None and version.created <= at))
        and (created_before is None or (version.created is not None and version.created < created_before))
    ]
    return max(held)[-1] if held else -1
