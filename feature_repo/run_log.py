"""Every run of a producer: what went in, which model, what came of it, how it ended.

The rows lie in the table `vitrine_runs` of the registry's database (`registry.path` of feature_store.yaml: SQLite,
PostgreSQL), or in `ledger.db` beside the Delta tables where the registry is no SQL database. A producer needs two
lines:

    with ledger.run(settings, "codes", now=now, reads=["product_embedding"]) as run:
        ...
        run.counts(coded=1000)

A run is alone in its step on a store (locks.py). One that a signal killed cannot write down its end: whoever next
looks finds its lock free, and notes it as killed.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable

from feature_repo import locks
from feature_repo import runs as where
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta

RUNNING, DONE, FAILED, STOPPED, KILLED = "running", "done", "failed", "stopped", "killed"
"""How a run stands: STOPPED is by the keyboard, KILLED by a signal or a machine that went down."""
LOCK_SECONDS = 30
"""How long SQLite waits for another writer."""

_RUNS = sql.Table(
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


@dataclass(frozen=True)
class Record:
    """One run, as it stands in the ledger."""

    id: int
    step: str
    model: str | None
    inputs: dict[str, int | None]
    """Version of each table, when it was read; None where there was no such table."""
    counts: dict[str, int]
    """Whatever the step counts: encoded, reused, ...; up to its last commit."""
    quarantined: dict[str, int]
    """Rows by reason."""
    started: datetime
    ended: datetime | None
    """None while it is running, and where it was killed: nobody saw when."""
    ending: str
    error: str | None
    host: str
    process: int


@dataclass
class Run:
    """A run that is going on; every method writes to the ledger at once."""

    id: int
    _engine: sql.Engine
    _settings: Settings
    _inputs: dict[str, int | None] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _quarantined: dict[str, int] = field(default_factory=dict)

    def reads(self, table: str, version: int | None) -> None:
        """Note what goes in: the version of a table."""
        self._inputs[table] = version
        self._write(inputs=self._inputs)

    def uses(self, model: str) -> None:
        """Note the version of the model."""
        self._write(model=model)

    def counts(self, **more: int) -> None:
        """Add to the counts, under any names."""
        for name, rows in more.items():
            self._counts[name] = self._counts.get(name, 0) + rows
        self._write(counts=self._counts)

    def quarantined(self, more: Mapping[str, int]) -> None:
        """Add rows that went to the quarantine, by reason."""
        for reason, rows in more.items():
            self._quarantined[reason] = self._quarantined.get(reason, 0) + rows
        self._write(quarantined=self._quarantined)

    def _write(self, **values: Any) -> None:
        with _explained(self._engine, self._settings) as connection:
            connection.execute(_RUNS.update().where(_RUNS.c.id == self.id).values(**values))


@contextmanager
def run(settings: Settings, step: str, *, now: datetime, reads: Sequence[str] = ()) -> Iterator[Run]:
    """Note a run of `produce STEP`, alone in its step, and how it ends.

    Args:
        now: when it starts; it ends so much later as has then passed.
        reads: tables whose version is noted now. A step that picks the version itself calls `Run.reads`.

    Raises:
        VitrineError: another process is running this step on this store, or the database does not answer.
    """
    began = time.monotonic()
    with locks.alone(settings, step):
        engine = _open(settings)
        _bury(engine, settings, step)
        mine = {
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
        with _explained(engine, settings) as connection:
            number = connection.execute(_RUNS.insert().values(**mine).returning(_RUNS.c.id)).scalar_one()
        going = Run(number, engine, settings)
        for table in reads:
            going.reads(table, delta.version(settings.table(table)))
        ending, error = DONE, None
        try:
            yield going
        except KeyboardInterrupt:
            ending = STOPPED
            raise
        except BaseException as caught:
            ending, error = FAILED, " ".join(f"{caught}".split()) or type(caught).__name__
            raise
        finally:
            ended = now.astimezone(UTC) + timedelta(seconds=time.monotonic() - began)
            going._write(ended=ended, ending=ending, error=error)


def runs(settings: Settings, *, step: str | None = None) -> list[Record]:
    """The runs of a deployment in the order in which they began, all or those of one step."""
    engine = _open(settings)
    with _explained(engine, settings) as connection:
        of_ours = sql.select(_RUNS.c.step).where(_RUNS.c.project == settings.project, _RUNS.c.ending == RUNNING)
        running = set(connection.scalars(of_ours))
    for name in running:
        if not locks.held(settings, name):
            _bury(engine, settings, name)
    wanted = sql.select(_RUNS).where(_RUNS.c.project == settings.project).order_by(_RUNS.c.id)
    if step is not None:
        wanted = wanted.where(_RUNS.c.step == step)
    with _explained(engine, settings) as connection:
        return [_record(row._asdict()) for row in connection.execute(wanted)]


def _bury(engine: sql.Engine, settings: Settings, step: str) -> None:
    """Note as killed whatever of a step whose lock is free is said to be running."""
    dead = (_RUNS.c.project == settings.project) & (_RUNS.c.step == step) & (_RUNS.c.ending == RUNNING)
    with _explained(engine, settings) as connection:
        connection.execute(_RUNS.update().where(dead).values(ending=KILLED))


def _open(settings: Settings) -> sql.Engine:
    """The database of a deployment, the table made where there is none yet."""
    url, file = where.address(settings)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    waits = {"timeout": LOCK_SECONDS} if url.get_backend_name() == "sqlite" else {}
    try:
        # No connection is kept: between its few writes a run may take hours.
        engine = sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args=waits)
    except (SQLAlchemyError, ImportError) as error:
        raise VitrineError(
            f"{settings.file}: no driver for registry.path ({error}); PostgreSQL's: pip install 'vitrine[postgres]'"
        ) from error
    with _explained(engine, settings) as connection:
        connection.execute(CreateTable(_RUNS, if_not_exists=True))
    return engine


@contextmanager
def _explained(engine: sql.Engine, settings: Settings) -> Iterator[sql.Connection]:
    """A transaction; what the database says against it becomes one line."""
    try:
        with engine.begin() as connection:
            yield connection
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        address = engine.url.render_as_string(hide_password=True)
        raise VitrineError(
            f"the ledger of runs in {address} (registry.path of {settings.file}) does not answer: {said}"
        ) from error


def _record(row: Mapping[str, Any]) -> Record:
    values = {name: row[name] for name in Record.__dataclass_fields__}
    for name in ("started", "ended"):
        if values[name] is not None and values[name].tzinfo is None:  # SQLite keeps no zone; all are UTC
            values[name] = values[name].replace(tzinfo=UTC)
    return Record(**values)


def line(run: Record) -> str:
    """A run in one line, and one more for each reason of what it quarantined."""
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
