"""The last runs of the producers, as their ledger has them: where it lies, and what it says; never made here.

The table `vitrine_runs` lies in the registry's database, or in `ledger.db` beside the Delta tables where the registry
is no SQL database (`produce runs` shows it whole).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.config import Settings, text
from feature_repo.errors import VitrineError

if TYPE_CHECKING:
    import sqlalchemy as sql

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

    url, file = address(settings)
    if file is not None and not file.is_file():
        return []
    try:
        engine = sql.create_engine(url, poolclass=sql.pool.NullPool)
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


def address(settings: Settings) -> "tuple[sql.URL, Path | None]":
    """The ledger's database, and its file where it is SQLite; a relative path starts at feature_store.yaml.

    Raises:
        VitrineError: `registry.path` is no database address.
    """
    import sqlalchemy as sql
    from sqlalchemy.exc import ArgumentError

    registry = settings.raw.get("registry")
    if not isinstance(registry, dict) or registry.get("registry_type") != "sql":
        file = settings.offline / "ledger.db"
        return sql.URL.create("sqlite", database=str(file)), file
    path = text(settings.file, "registry.path", registry.get("path"))
    try:
        url = sql.make_url(path)
    except ArgumentError as error:
        raise VitrineError(f"{settings.file}: registry.path is no database address ({error})") from error
    if url.get_backend_name() != "sqlite" or not url.database:
        return url, None
    file = (settings.file.parent / url.database).resolve()
    return url.set(database=str(file)), file


def _utc(moment: datetime) -> datetime:
    """SQLite keeps no zone; all are UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
