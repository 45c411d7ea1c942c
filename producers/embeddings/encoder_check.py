"""Checks that an encoder is the one that is expected, before it encodes anything."""

from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.errors import EncoderMismatchError
from feature_repo.offline import production
from producers.embeddings.existing_rows import BACKFILL, STEP

LOGGED_RUNS = 100_000
"""The number of latest runs in which an earlier version of the encoder is looked for."""


def require_version(encoder: str, version: str, expected: str | None) -> None:
    """Raise EncoderMismatchError if an encoder has another version than the expected one; None expects any.

    Args:
        encoder: checkpoint directory or hub name, for the message.
        version: the encoder's version, `name@fingerprint`.
        expected: the version that it must have.
    """
    if expected not in (None, version):
        raise EncoderMismatchError(
            f"{encoder} is {version}, expected {expected}: the checkpoint was changed or renamed; put back the one "
            "that had this version, or begin again with the new one"
        )


def require_unchanged(settings: Settings, version: str) -> None:
    """Raise EncoderMismatchError if the last run with an encoder of this name had another version.

    The name is the part of `version` before the last @. An encoder without a run passes, and so do the two versions of
    an upgrade that is running.
    """
    upgrade = production.read_current(settings.offline)
    if upgrade and version in (upgrade.production_version, upgrade.candidate_version):
        return
    name = version.rpartition("@")[0]
    runs = run_log.read_last_runs(settings, LOGGED_RUNS)  # unlike read_runs it creates no database
    models = (run.model for run in runs if run.step in (STEP, BACKFILL) and run.model)
    last = next((model for model in models if model.rpartition("@")[0] == name), version)
    if last != version:
        raise EncoderMismatchError(
            f"encoder `{name}` has changed: {last} in the last run, {version} now; if it was trained again, "
            "give its directory another name, or use --accept-changed to encode everything with the new version"
        )
