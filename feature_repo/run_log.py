"""Run log: one row for each run of a producer, with its inputs, model, counts and outcome.

The rows are in the table `vitrine_runs` of the registry's database (`registry.path` of feature_store.yaml: SQLite or
PostgreSQL). If the registry is not an SQL database, they are in `ledger.db` beside the Delta tables. Usage:

    with run_log.record_run(settings, "codes", now=now, reads=["product_embedding"]) as run:
        ...
        run.add_counts(coded=1000)

`record_run` holds the lock of its step (locks.py). A run that is killed cannot record its end. The next reader that
finds its lock free marks it as killed.

SQLAlchemy is imported inside the functions, because most importers of this module only need the classes.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_repo.config import Settings, require_text
from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.files import locks
from feature_repo.offline import delta

if TYPE_CHECKING:
    import sqlalchemy as sql

RUNNING, DONE, FAILED, STOPPED, KILLED = "running", "done", "failed", "stopped", "killed"
"""Values of `RunRecord.ending`. STOPPED: by Ctrl-C. KILLED: by a signal, or because the machine went down."""
SQLITE_TIMEOUT_SECONDS = 30
"""How long SQLite waits for the lock of another writer."""


@dataclass(frozen=True)
class RunRecord:
    """One run of a producer, as the table holds it."""

    id: int
    """Number of the run; a later run has a higher one."""
    step: str
    """The command, without `produce`: "catalogue", "embeddings", ..."""
    model: str | None
    """Version of the model that the run used; None if it recorded none."""
    inputs: dict[str, int | None]
    """Name of each input table -> its Delta version when it was read; None if the table did not exist."""
    counts: dict[str, int]
    """Row counts by name, such as `encoded` or `reused`, up to the last commit of the run."""
    quarantined: dict[str, int]
    """Number of quarantined rows by reason."""
    started: datetime
    """In UTC."""
    ended: datetime | None
    """In UTC. None while the run is running, and if it was killed."""
    ending: str
    """RUNNING, DONE, FAILED, STOPPED or KILLED."""
    error: str | None
    """Message of the exception, in one line; None unless the run FAILED."""
    host: str
    """Name of the machine."""
    process: int
    """Process id on that machine."""


@dataclass
class RunRecorder:
    """Writes the row of the current run; `record_run` creates it.

    Every method commits at once, and raises UnavailableError if the database does not answer.
    """

    id: int
    """Number of the run in the table."""
    _engine: "sql.Engine"
    _settings: Settings
    _inputs: dict[str, int | None] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _quarantined: dict[str, int] = field(default_factory=dict)

    def add_input(self, table: str, version: int | None) -> None:
        """Record the Delta version of an input table; None if the table does not exist.

        A version recorded earlier for the same table is replaced.
        """
        self._inputs[table] = version
        self._update(inputs=self._inputs)

    def set_model(self, model: str) -> None:
        """Record the version of the model that the run uses. It replaces one recorded earlier."""
        self._update(model=model)

    def add_counts(self, **counts: int) -> None:
        """Add numbers of rows to the run's counts. Any name is allowed; a number is added to what the name has."""
        for name, rows in counts.items():
            self._counts[name] = self._counts.get(name, 0) + rows
        self._update(counts=self._counts)

    def add_quarantined(self, counts: Mapping[str, int]) -> None:
        """Add numbers of quarantined rows: reason -> rows. A number is added to what the reason has."""
        for reason, rows in counts.items():
            self._quarantined[reason] = self._quarantined.get(reason, 0) + rows
        self._update(quarantined=self._quarantined)

    def _update(self, **values: Any) -> None:
        runs = _runs_table()
        with _transaction(self._engine, self._settings) as connection:
            connection.execute(runs.update().where(runs.c.id == self.id).values(**values))


@contextmanager
def record_run(settings: Settings, step: str, *, now: datetime, reads: Sequence[str] = ()) -> Iterator[RunRecorder]:
    """Record a run of `produce STEP` and hold the lock of the step until it ends.

    The row is inserted as RUNNING. It becomes DONE when the block ends, STOPPED on KeyboardInterrupt, and FAILED with
    the message on any other exception. The exception is raised again. Earlier runs of the step that are still recorded
    as running become KILLED.

    Args:
        settings: the deployment.
        step: name of the step, which is the command without `produce`.
        now: start time, with a time zone. The end time is `now` plus the elapsed monotonic time.
        reads: names of the tables whose current version is recorded as input; None is recorded for a table that does
            not exist. A step that chooses the version itself calls `RunRecorder.add_input` instead.

    Yields:
        The recorder of the run.

    Raises:
        ConflictError: this or another process runs this step on this store; nothing is recorded.
        CorruptDataError: the log of a table in `reads` cannot be read.
        UnavailableError: the database does not answer.
        InvalidInputError: `registry.path` is not a database address, or its driver is not installed.
    """
    began = time.monotonic()
    with locks.hold_lock(settings, step):
        engine = _open_database(settings)
        _mark_killed(engine, settings, step)
        runs = _runs_table()
        row = {
            "project": settings.project,
            "step": step,
            "inputs": {},
            "counts": {},
            "quarantined": {},
            "started": now.astimezone(UTC),
            "ending": RUNNING,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        with _transaction(engine, settings) as connection:
            run_id = connection.execute(runs.insert().values(**row).returning(runs.c.id)).scalar_one()
        recorder = RunRecorder(run_id, engine, settings)
        for table in reads:
            recorder.add_input(table, delta.latest_version(settings.table(table)))
        ending, error = DONE, None
        try:
            yield recorder
        except KeyboardInterrupt:
            ending = STOPPED
            raise
        except BaseException as raised:
            ending, error = FAILED, " ".join(f"{raised}".split()) or type(raised).__name__
            raise
        finally:
            ended = now.astimezone(UTC) + timedelta(seconds=time.monotonic() - began)
            recorder._update(ended=ended, ending=ending, error=error)


def read_runs(settings: Settings, *, step: str | None = None) -> list[RunRecord]:
    """Return the runs of a deployment, oldest first, and mark dead ones as killed.

    Creates the table if it does not exist. A run that is recorded as running, but whose lock is free, becomes KILLED.

    Args:
        settings: the deployment.
        step: return only the runs of this step, none if it never ran; None returns those of all steps.

    Raises:
        UnavailableError: the database does not answer.
        InvalidInputError: `registry.path` is not a database address, or its driver is not installed.
    """
    import sqlalchemy as sql

    engine, runs = _open_database(settings), _runs_table()
    with _transaction(engine, settings) as connection:
        running = sql.select(runs.c.step).where(runs.c.project == settings.project, runs.c.ending == RUNNING)
        running_steps = set(connection.scalars(running))
    for name in running_steps:
        if not locks.is_locked(settings, name):
            _mark_killed(engine, settings, name)
    query = sql.select(runs).where(runs.c.project == settings.project).order_by(runs.c.id)
    if step is not None:
        query = query.where(runs.c.step == step)
    with _transaction(engine, settings) as connection:
        return [_to_record(row._asdict()) for row in connection.execute(query)]


def read_last_runs(settings: Settings, limit: int) -> list[RunRecord]:
    """Return the newest runs of a deployment, newest first, without writing to the database.

    A killed run may still be recorded as running, because only `read_runs` and the next run of its step mark it.
    Returns an empty list if there is no table yet.

    Args:
        settings: the deployment.
        limit: the largest number of runs to return, of all steps together; 0 returns none.

    Raises:
        UnavailableError: the database does not answer.
        InvalidInputError: `registry.path` is not a database address, or its driver is not installed.
    """
    import sqlalchemy as sql

    _, file = _registry_address(settings)
    if file is not None and not file.is_file():
        return []
    engine, runs = _connect(settings), _runs_table()
    query = sql.select(runs).where(runs.c.project == settings.project).order_by(runs.c.id.desc()).limit(limit)
    with _transaction(engine, settings) as connection:
        if not sql.inspect(connection).has_table(runs.name):
            return []
        return [_to_record(row._asdict()) for row in connection.execute(query)]


def format_run(run: RunRecord) -> str:
    """Return a run as one line of text, followed by one indented line for each quarantine reason.

    Times are in UTC, the duration is in seconds. Process and machine are shown only while the run is running. There is
    no line break at the end.
    """
    read = ", ".join(f"{table} {'none' if version is None else f'v{version}'}" for table, version in run.inputs.items())
    took = "" if run.ended is None else f" after {(run.ended - run.started).total_seconds():.1f} s"
    parts = [
        f"{run.id} {run.step}, {run.started:%Y-%m-%d %H:%M:%S} UTC: {run.ending}{took}",
        f"process {run.process} on {run.host}" if run.ending == RUNNING else "",
        run.model or "",
        f"from {read}" if read else "",
        ", ".join(f"{rows:,} {name.replace('_', ' ')}" for name, rows in run.counts.items()),
        run.error or "",
    ]
    lines = ["; ".join(part for part in parts if part)]
    return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in run.quarantined.items()])


@cache
def _runs_table() -> "sql.Table":
    import sqlalchemy as sql

    return sql.Table(
        "vitrine_runs",
        sql.MetaData(),
        sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
        sql.Column("project", sql.String(255), nullable=False),
        sql.Column("step", sql.String(64), nullable=False),
        sql.Column("model", sql.String(512)),
        sql.Column("inputs", sql.JSON, nullable=False),
        sql.Column("counts", sql.JSON, nullable=False),
        sql.Column("quarantined", sql.JSON, nullable=False),
        sql.Column("started", sql.DateTime(timezone=True), nullable=False),
        sql.Column("ended", sql.DateTime(timezone=True)),
        sql.Column("ending", sql.String(16), nullable=False),
        sql.Column("error", sql.Text),
        sql.Column("host", sql.String(255), nullable=False),
        sql.Column("process", sql.Integer, nullable=False),
    )


def _registry_address(settings: Settings) -> "tuple[sql.URL, Path | None]":
    """Return the address of the database, and its file if it is SQLite. Relative paths start at feature_store.yaml."""
    import sqlalchemy as sql
    from sqlalchemy.exc import ArgumentError

    registry = settings.raw.get("registry")
    if not isinstance(registry, dict) or registry.get("registry_type") != "sql":
        file = settings.local / "ledger.db"
        return sql.URL.create("sqlite", database=str(file)), file
    path = require_text(settings.file, "registry.path", registry.get("path"))
    try:
        url = sql.make_url(path)
    except ArgumentError as error:
        raise InvalidInputError(  # SQLAlchemy may quote the address, with its password
            f"{settings.file}: registry.path is not a database address; expected sqlite:///FILE or "
            "postgresql+psycopg://user:password@host/database"
        ) from error
    if url.get_backend_name() != "sqlite" or not url.database:
        return url, None
    file = (settings.file.parent / url.database).resolve()
    return url.set(database=str(file)), file


def _connect(settings: Settings) -> "sql.Engine":
    import sqlalchemy as sql
    from sqlalchemy.exc import SQLAlchemyError

    url, _ = _registry_address(settings)
    options = {"timeout": SQLITE_TIMEOUT_SECONDS} if url.get_backend_name() == "sqlite" else {}
    try:
        # NullPool: a run may take hours between two writes, and no connection stays open meanwhile.
        return sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args=options)
    except (SQLAlchemyError, ImportError) as error:
        raise InvalidInputError(
            f"{settings.file}: no driver for registry.path ({error}); for PostgreSQL: pip install 'vitrine[postgres]'"
        ) from error


def _open_database(settings: Settings) -> "sql.Engine":
    """Connect to the database; create its file and the table if they do not exist."""
    from sqlalchemy.schema import CreateTable

    _, file = _registry_address(settings)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = _connect(settings)
    with _transaction(engine, settings) as connection:
        connection.execute(CreateTable(_runs_table(), if_not_exists=True))
    return engine


@contextmanager
def _transaction(engine: "sql.Engine", settings: Settings) -> "Iterator[sql.Connection]":
    """Open a transaction. Raise UnavailableError with one line for any error of the database."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        message = " ".join(str(getattr(error, "orig", None) or error).split())
        address = engine.url.render_as_string(hide_password=True)
        raise UnavailableError(
            f"the run log in {address} (registry.path of {settings.file}) does not answer: {message}; check the "
            "address and that the database is up"
        ) from error


def _mark_killed(engine: "sql.Engine", settings: Settings, step: str) -> None:
    """Mark the runs of a step that are recorded as running as killed. The caller knows that its lock is free."""
    runs = _runs_table()
    dead = (runs.c.project == settings.project) & (runs.c.step == step) & (runs.c.ending == RUNNING)
    if settings.offline != settings.local:  # tables in a bucket, and the locks of this machine only
        dead &= runs.c.host == socket.gethostname()
    with _transaction(engine, settings) as connection:
        connection.execute(runs.update().where(dead).values(ending=KILLED))


def _to_record(row: Mapping[str, Any]) -> RunRecord:
    values = {column.name: row[column.name] for column in fields(RunRecord)}
    for name in ("started", "ended"):
        if values[name] is not None and values[name].tzinfo is None:  # SQLite stores no time zone; all times are UTC
            values[name] = values[name].replace(tzinfo=UTC)
    return RunRecord(**values)
