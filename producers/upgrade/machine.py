"""The states of an encoder upgrade. Every function can be killed at any moment: the same call then does the rest.

A state is recorded (feature_repo/offline/production.py) after its work is done, and that work changes nothing if it is
repeated. Two changes concern readers: that of the online catalog, and the recorded version in production. `advance` and
`rollback` make both, the online one first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from feature_repo.config import Settings
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.files import locks
from feature_repo.gate_report import read_report
from feature_repo.offline import production
from feature_repo.offline.production import State, Upgrade
from producers.embeddings import existing_rows
from producers.upgrade import versions
from producers.upgrade.both_versions import COMPLETE
from producers.upgrade.versions import RunStep, UpgradeOptions

RETIRE_GRACE = timedelta(minutes=10)
"""Minimum time after a switch before the other version can be deleted: readers may still use the old catalog."""
STREAM = "stream"
"""Name of the lock of `produce stream`."""
STREAM_GRACE = timedelta(minutes=2)
"""After this time a running stream has seen a state: it reads it before each commit, and commits once a minute or more
often."""
_PREPARED = (State.STAGED, State.BACKFILLING, State.SHADOW, State.GATED)


@dataclass(frozen=True)
class UpgradeContext:
    """A deployment, and what a change of its state needs."""

    settings: Settings
    """The deployment."""
    run_step: RunStep
    """Runs a command of `produce`."""
    clock: Callable[[], datetime]
    """Returns the current time, with a time zone."""
    report: Callable[[str], None]
    """Called with one line for each thing that was done."""


def start(settings: Settings, encoder_version: str, options: UpgradeOptions, *, now: datetime) -> Upgrade:
    """Record an encoder version as the candidate of an upgrade. Nothing else is written.

    A candidate that was rolled back may be started again; the rows that it has are kept.

    Args:
        settings: the deployment.
        encoder_version: the candidate, `name@fingerprint`.
        options: what the upgrade needs later.
        now: the time of the step, with a time zone.

    Returns:
        The new state.

    Raises:
        NotFoundError: there are no vectors yet.
        InvalidInputError: the candidate is in production already.
        ConflictError: another upgrade is running.
    """
    current = require_version(settings, now)
    if encoder_version == current.production_version:
        raise InvalidInputError(f"encoder {encoder_version} is in production already; name another checkpoint")
    is_again = current.state is State.ROLLED_BACK and current.candidate_version == encoder_version
    if current.is_running and not is_again:
        raise ConflictError(
            f"the upgrade from or to {current.candidate_version} is {current.state}; end it with `produce upgrade "
            "retire`, or roll it back first"
        )
    return production.record_step(
        settings.offline,
        current,
        state=State.STAGED,
        candidate_version=encoder_version,
        options=options.to_json(),
        created=now,
    )


def advance(context: UpgradeContext, *, gate: Path | None) -> Upgrade:
    """Bring the upgrade to its next state, or keep the version that is not in production up to date.

    Each call first writes the rows that the version that is not in production lacks. Then, by state:

        staged, backfilling  the next state is shadow
        shadow               if the report `gate` has passed, the next state is gated; without a report nothing changes
        gated                the candidate is put into production; the next state is cut over
        cut over             nothing more: the former version is up to date, so that a rollback loses nothing

    Args:
        context: the deployment.
        gate: report of `consume gate`, for the state shadow; None if there is none yet.

    Returns:
        The state afterwards.

    Raises:
        NotFoundError: there is no upgrade, or no report at `gate`.
        InvalidInputError: the report is of another candidate, or a gate failed.
        ConflictError: the upgrade was rolled back or is being retired; or another process has moved it on.
    """
    current, offline = _require_running(context.settings), context.settings.offline
    if current.state not in (*_PREPARED, State.CUT_OVER):
        raise ConflictError(f"the upgrade is {current.state}; start another one, or run `produce upgrade retire`")
    if current.state is State.STAGED:
        current = production.record_step(offline, current, state=State.BACKFILLING, created=context.clock())
    if current.state is State.SHADOW and gate is not None:
        _require_passed(current, gate)  # before long work
    _catch_up(context, current)
    if current.state is State.BACKFILLING:
        return production.record_step(offline, current, state=State.SHADOW, created=context.clock())
    if current.state is State.SHADOW and gate is not None:
        return production.record_step(offline, current, state=State.GATED, created=context.clock())
    if current.state is State.GATED:
        assert current.candidate_version is not None
        return switch(context.settings, current, State.CUT_OVER, current.candidate_version, context.clock())
    return current


def catch_up(context: UpgradeContext) -> Upgrade:
    """Write the rows that the version that is not in production lacks, and stay in the state.

    Nothing is written before the end of the backfill, which `advance` makes, and after a rollback.

    Raises:
        NotFoundError: there is no upgrade.
    """
    current = _require_running(context.settings)
    if current.state in COMPLETE:
        _catch_up(context, current)
    else:
        context.report(f"{current.candidate_version} is {current.state}: nothing is written")
    return current


def rollback(context: UpgradeContext, *, at_once: bool = False) -> Upgrade:
    """Put the version that was in production at the start back into production. The candidate's rows are kept.

    If the candidate is in production, the rows of the former version are first written for what came since.

    Args:
        context: the deployment.
        at_once: do not write these rows. The daily steps with the former encoder write them later.

    Returns:
        The state afterwards.

    Raises:
        NotFoundError: there is no upgrade.
        ConflictError: it was rolled back already, or its rows are being deleted.
    """
    current = _require_running(context.settings)
    if current.state not in (*_PREPARED, State.CUT_OVER):
        raise ConflictError(f"the upgrade is {current.state}: there is nothing to roll back")
    former = current.production_version
    if current.state is State.CUT_OVER:
        if not at_once:
            _catch_up(context, current)
        assert current.candidate_version is not None
        former = current.candidate_version
    return switch(context.settings, current, State.ROLLED_BACK, former, context.clock())


def retire(settings: Settings, *, grace: timedelta = RETIRE_GRACE, clock: Callable[[], datetime]) -> dict[str, int]:
    """Delete the rows of the version that is not in production; return their number by table. The upgrade is over.

    Args:
        settings: the deployment.
        grace: minimum time since the switch: readers may still use the catalog that names the other version.
        clock: returns the current time, with a time zone.

    Raises:
        NotFoundError: there is no upgrade.
        ConflictError: the upgrade was neither cut over nor rolled back; or `produce embeddings`, or a stream that has
            not seen this state yet, may still write rows of the version. Nothing is deleted then.
        InvalidInputError: the switch was less than `grace` ago.
    """
    current = _require_running(settings)
    if current.state in (State.CUT_OVER, State.ROLLED_BACK):
        age = clock() - current.created
        if age < grace:
            raise InvalidInputError(
                f"{current.candidate_version} was in use until {age.total_seconds():.0f} s ago, and readers may read "
                f"it a while longer; wait until {grace.total_seconds():.0f} s have passed, or pass a shorter --grace"
            )
        current = production.record_step(settings.offline, current, state=State.RETIRING, created=clock())
    if current.state is not State.RETIRING:
        raise ConflictError(f"the upgrade is {current.state}; advance it, or run `produce upgrade rollback` first")
    assert current.candidate_version is not None
    _require_no_writer(settings, current, clock())
    deleted = versions.delete_version(settings, current.candidate_version)
    production.record_step(
        settings.offline, current, state=State.RETIRED, candidate_version=None, options={}, created=clock()
    )
    return deleted


def require_version(settings: Settings, now: datetime) -> Upgrade:
    """Return the current state; record the version in production if none is recorded.

    Raises:
        NotFoundError: none is recorded and there are no vectors.
    """
    current = production.read_current(settings.offline)
    if current is None:
        if not production.count_products(settings.offline):
            raise NotFoundError("there are no vectors yet; run `produce embeddings`")
        production.record_first_version(settings.offline, "", now)
        current = production.read_current(settings.offline)
        assert current is not None
    return current


def describe_next(upgrade: Upgrade) -> str:
    """Return the command that comes next, with its reason, in one line."""
    if not upgrade.is_running:
        return "`produce upgrade start --encoder CHECKPOINT` prepares another encoder"
    return {
        State.STAGED: "`produce upgrade advance` writes the candidate's rows, offline and online",
        State.BACKFILLING: "`produce upgrade advance` continues to write the candidate's rows",
        State.SHADOW: f"`consume gate --candidate {upgrade.candidate_version} --output gate.json`, then "
        "`produce upgrade advance --gate gate.json`",
        State.GATED: "`produce upgrade advance` puts the candidate into production",
        State.CUT_OVER: "`produce upgrade rollback` returns, `produce upgrade retire` deletes the former version",
        State.ROLLED_BACK: "`produce upgrade retire` deletes the candidate's rows, `produce upgrade start` tries again",
        State.RETIRING: "`produce upgrade retire` continues to delete rows",
    }[upgrade.state]


def _require_running(settings: Settings) -> Upgrade:
    current = production.read_current(settings.offline)
    if current is None or not current.is_running:
        raise NotFoundError("there is no upgrade; run `produce upgrade start`")
    return current


def _require_no_writer(settings: Settings, upgrade: Upgrade, now: datetime) -> None:
    """Raise ConflictError while a command that began before this state may write rows of both versions."""
    if any(locks.is_locked(settings, step) for step in (existing_rows.STEP, existing_rows.BACKFILL)):
        writer, when = f"produce {existing_rows.STEP}", "when it has ended"
    elif locks.is_locked(settings, STREAM) and now - upgrade.created < STREAM_GRACE:
        writer, when = f"produce {STREAM}", f"in {STREAM_GRACE.total_seconds():.0f} s"
    else:
        return
    raise ConflictError(
        f"`{writer}` may still write rows of {upgrade.candidate_version}; run `produce upgrade retire` again {when}"
    )


def _catch_up(context: UpgradeContext, upgrade: Upgrade) -> None:
    """Write what the version that is not in production lacks, offline and online."""
    options, version = UpgradeOptions.from_json(upgrade.options), upgrade.candidate_version
    assert version is not None
    encoder = options.former_encoder if upgrade.state is State.CUT_OVER else options.encoder
    if encoder is None:
        context.report(
            f"new products are not encoded with {version}, because `produce upgrade start` had no --former-encoder"
        )
    else:
        for arguments in versions.list_commands(options, encoder, version):
            context.run_step(arguments)
    versions.write_online(context.settings, version, upgrade.production_version, context.clock())
    context.report(f"{version} is up to date, offline and online")


def _require_passed(upgrade: Upgrade, file: Path) -> None:
    """Raise InvalidInputError if the report is not of this upgrade in its state shadow, or a gate failed."""
    gate = read_report(file)
    expected = (upgrade.candidate_version, upgrade.production_version)
    if (gate.candidate_version, gate.production_version) != expected:
        raise InvalidInputError(
            f"{file} compares {gate.candidate_version} with {gate.production_version}; expected {expected[0]} with "
            f"{expected[1]}: run `consume gate` again"
        )
    if gate.created < upgrade.created:
        raise InvalidInputError(
            f"{file} is of {gate.created:%Y-%m-%d %H:%M} UTC: all rows of {gate.candidate_version} were written later; "
            "run `consume gate` again"
        )
    if gate.failures:
        names = "; ".join(f"{failure.name}: {failure.detail}" for failure in gate.failures)
        raise InvalidInputError(f"{file}: {len(gate.failures)} gates failed: {names}")


def switch(settings: Settings, upgrade: Upgrade, state: State, production_version: str, now: datetime) -> Upgrade:
    """Put a version into production, online first, and record it as a step to `state`.

    Args:
        settings: the deployment.
        upgrade: the state before.
        state: the state after: cut over, or rolled back.
        production_version: one of the two versions of the upgrade.
        now: the time of the step, with a time zone.
    """
    other = (
        upgrade.candidate_version if production_version == upgrade.production_version else upgrade.production_version
    )
    versions.switch_online(settings, production_version, upgrade.production_version)
    return production.record_step(
        settings.offline,
        upgrade,
        state=state,
        production_version=production_version,
        candidate_version=other,
        created=now,
    )
