"""The other encoder version of an upgrade, whose rows are written beside those that a command writes."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow.compute as pc

from feature_repo.config import Settings
from feature_repo.offline import production
from feature_repo.offline.production import State
from feature_repo.schema import CREATED_TIMESTAMP
from producers.upgrade.versions import UpgradeOptions

COMPLETE = (State.SHADOW, State.GATED, State.CUT_OVER)
"""States in which both versions have all rows up to the last `produce upgrade advance`."""


@dataclass(frozen=True)
class OtherVersion:
    """One of the two versions of an upgrade."""

    version: str
    """`name@fingerprint`."""
    encoder: str | None
    """Its checkpoint: directory or hub name; None if `produce upgrade start` was not told."""
    since: datetime | None
    """Only products that came since then get rows now, because the backfill writes those of the others; None: all."""

    def select(self) -> pc.Expression | None:
        """Return the filter of the catalogue rows that get rows now; None for all."""
        return None if self.since is None else pc.field(CREATED_TIMESTAMP) >= pc.scalar(self.since)


def find_other_version(settings: Settings, encoder_version: str) -> OtherVersion | None:
    """Return the other version of an upgrade whose rows are being written.

    Args:
        settings: the deployment.
        encoder_version: one of the two versions.

    Returns:
        None without an upgrade, before its backfill, after a rollback, and if the version is not of the upgrade.
    """
    upgrade = production.read_current(settings.offline)
    if upgrade is None or upgrade.state not in (State.BACKFILLING, *COMPLETE) or upgrade.candidate_version is None:
        return None
    both = (upgrade.production_version, upgrade.candidate_version)
    if encoder_version not in both:
        return None
    other = both[1] if encoder_version == both[0] else both[0]
    options = UpgradeOptions.from_json(upgrade.options)
    is_next = (other == upgrade.production_version) == (upgrade.state is State.CUT_OVER)
    is_backfilled = upgrade.state is State.BACKFILLING and other == upgrade.candidate_version
    return OtherVersion(
        other,
        options.encoder if is_next else options.former_encoder,
        upgrade.created if is_backfilled else None,
    )
