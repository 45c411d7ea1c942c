"""The last runs of the producers, as their ledger has them: read alone, and never made.

The table `vitrine_runs` lies in the registry's database, or in `ledger.db` beside the Delta tables where the registry
is no SQL database (`produce runs` shows it whole).
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from feature_repo.errors import VitrineError
from feature_repo.settings import Settings, text

DONE = "done"


@dataclass(frozen=True)
class LastRun:
    """One run of a step."""

    step: str
    """`produce STEP`."""
    started: datetime
    ended: datetime | None
    """None while it is running, and where it was killed."""
    ending: str
    """running, done, failed, stopped or killed."""
    error: str | None
    quarantined: dict[str, int]
    """Rows by reason."""


def last(settings: Settings, limit: int) -> list[LastRun]:
    """The newest runs of the deployment, the newest first; none where there is no ledger yet.

    Raises:
        VitrineError: the database does not answer.
    """
    import sqlalchemy as sql
    from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

    address = _address(settings)
    if address is None:
        return []
    try:
        engine = sql.create_engine(address, poolclass=sql.pool.NullPool)
        if not sql.inspect(engine).has_table("vitrine_runs"):
            return []
        runs = sql.Table("vitrine_runs", sql.MetaData(), autoload_with=engine)
        newest = sql.select(runs).where(runs.c.project == settings.project).order_by(runs.c.id.desc()).limit(limit)
        with engine.connect() as connection:
            rows = [row._asdict() for row in connection.execute(newest)]
    except (SQLAlchemyError, NoSuchTableError, ImportError) as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        raise VitrineError(f"the ledger of runs (registry.path of {settings.file}) does not answer: {said}") from error
    return [
        LastRun(
            step=row["step"],
            started=_utc(row["started"]),
            ended=row["ended"] and _utc(row["ended"]),
            ending=row["ending"],
            error=row["error"],
            quarantined=row["quarantined"] or {},
        )
        for row in rows
    ]


def _address(settings: Settings) -> str | None:
    """The database; None where it would be a file that is not there."""
    registry = settings.raw.get("registry")
    if not isinstance(registry, dict) or registry.get("registry_type") != "sql":
        file = settings.offline / "ledger.db"
        return f"sqlite:///{file}" if file.is_file() else None
    path = text(settings.file, "registry.path", registry.get("path"))
    if not path.startswith("sqlite:///"):
        return path
    file = (settings.file.parent / path.removeprefix("sqlite:///")).resolve()
    return f"sqlite:///{file}" if file.is_file() else None


def _utc(moment: datetime) -> datetime:
    """SQLite keeps no zone; all are UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
