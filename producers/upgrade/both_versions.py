"""The encoder versions whose rows are written: the one in production, and during an upgrade the other one too."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow.compute as pc

from feature_repo.config import Settings
from feature_repo.offline import production
from feature_repo.offline.production import State, Upgrade
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
    """Its checkpoint: directory or hub name; None if `produce upgrade start` did not name it."""
    since: datetime | None
    """Only products created since then get rows now; the backfill writes those of the others. None: all."""

    def select(self) -> pc.Expression | None:
        """Return the filter of the catalogue rows that get rows now; None for all."""
        return None if self.since is None else pc.field(CREATED_TIMESTAMP) >= pc.scalar(self.since)


@dataclass(frozen=True)
class WrittenVersion:
    """An encoder version whose rows a stream writes."""

    version: str
    """`name@fingerprint`."""
    encoder: str | None
    """Its checkpoint; None if the upgrade does not name it."""
    is_complete: bool
    """False during its backfill: only vectors are written then, and the backfill writes all other rows."""


def list_written_versions(upgrade: Upgrade) -> list[WrittenVersion]:
    """Return the versions whose rows are written for new products, the one in production first."""
    versions = [WrittenVersion(upgrade.production_version, _find_checkpoint(upgrade, upgrade.production_version), True)]
    if upgrade.state in (State.BACKFILLING, *COMPLETE) and upgrade.candidate_version is not None:
        checkpoint = _find_checkpoint(upgrade, upgrade.candidate_version)
        versions.append(WrittenVersion(upgrade.candidate_version, checkpoint, upgrade.state in COMPLETE))
    return versions


def find_other_version(settings: Settings, encoder_version: str) -> OtherVersion | None:
    """Return the other version of an upgrade whose rows are being written.

    Args:
        settings: the deployment.
        encoder_version: one of the two versions.

    Returns:
        None without an upgrade, before its backfill, after a rollback, and if the version is not of the upgrade.
    """
    upgrade = production.read_current(settings.offline)
    if upgrade is None:
        return None
    written = {one.version: one for one in list_written_versions(upgrade)}
    if len(written) < 2 or encoder_version not in written:
        return None
    del written[encoder_version]
    (other,) = written.values()
    return OtherVersion(other.version, other.encoder, None if other.is_complete else upgrade.created)


def _find_checkpoint(upgrade: Upgrade, version: str) -> str | None:
    """Return the checkpoint of one of the two versions of an upgrade; None if it is not known, as after its end."""
    if not upgrade.is_running or upgrade.state is State.RETIRING:
        return None
    options = UpgradeOptions.from_json(upgrade.options)
    is_next = (version == upgrade.production_version) == (upgrade.state is State.CUT_OVER)
    return options.encoder if is_next else options.former_encoder
