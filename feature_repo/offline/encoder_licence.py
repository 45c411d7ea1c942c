"""Table `encoder_licence`: the licence of each encoder that wrote vectors, if its checkpoint states one."""

from datetime import datetime

import pyarrow as pa

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_LICENCE, ENCODER_VERSION


def record(settings: Settings, encoder_version: str, licence: str | None, now: datetime) -> None:
    """Add the licence of an encoder, unless it is the one that the table has.

    Args:
        settings: the deployment.
        encoder_version: the encoder.
        licence: its licence; None, if none is stated, adds nothing.
        now: the created timestamp, with a time zone.
    """
    if licence is None or read(settings).get(encoder_version) == licence:
        return
    row = {ENCODER_VERSION: encoder_version, "licence": licence, CREATED_TIMESTAMP: now}
    delta.append(settings.table(schema.ENCODER_LICENCE_TABLE), pa.Table.from_pylist([row], ENCODER_LICENCE))


def read(settings: Settings) -> dict[str, str]:
    """Return the licence of each encoder version that states one; the row created last counts."""
    path = settings.table(schema.ENCODER_LICENCE_TABLE)
    if not delta.exists(path):
        return {}
    rows = delta.read(path, ENCODER_LICENCE.names).sort_by(CREATED_TIMESTAMP)
    return dict(zip(rows[ENCODER_VERSION].to_pylist(), rows["licence"].to_pylist(), strict=True))
