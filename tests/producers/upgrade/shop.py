"""The small shop in the middle of an upgrade: two encoders, and steps that write the rows of either."""

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import config, definitions, schema
from feature_repo.config import Settings
from feature_repo.gate_report import Gate, GateReport
from feature_repo.offline import delta, production
from feature_repo.stores.feature_store import open_feature_store
from producers.upgrade import machine
from producers.upgrade.machine import UpgradeContext
from producers.upgrade.versions import RunStep, UpgradeOptions
from tests.feature_repo.features import world
from tests.feature_repo.features.world import LISTED, RANKED

OLD, NEW = world.ENCODER, "next@2"
ENCODERS = {"old": OLD, "new": NEW}
"""Checkpoint to version."""
OPTIONS = UpgradeOptions("new", "old", (("tags",), ("codes",), ("interests",), ("neighbours",)))
TABLES = [table for table in schema.ENCODER_TABLES if table != schema.NEIGHBOURS_TABLE]
"""The tables that the small shop has."""


class Steps:
    """Stands for the commands of `produce`: `embeddings --encoder X` writes what X lacks, in every table.

    The rows of the other encoder are copied: what is tested is which rows are written and read, not their values.
    """

    def __init__(self, settings: Settings, fail_at: int | None = None) -> None:
        self.settings = settings
        self.fail_at = fail_at
        """Number of the commit before which the steps are interrupted; None for never."""
        self.now = RANKED + timedelta(days=1)

    def __call__(self, arguments: Sequence[str]) -> None:
        if arguments[0] == "embeddings":
            self.now += timedelta(hours=1)
            for table in TABLES:
                self._write(table, ENCODERS[arguments[arguments.index("--encoder") + 1]])

    def interrupt(self) -> None:
        if self.fail_at is not None:
            self.fail_at -= 1
            if self.fail_at < 0:
                raise KeyboardInterrupt

    def _write(self, table: str, version: str) -> None:
        path = self.settings.table(table)
        key = ["user_id" if table == schema.INTEREST_TABLE else "product_id", "event_timestamp"]
        rows = delta.read(path)
        others, own = (
            rows.filter(mask)
            for mask in (pc.not_equal(rows["encoder_version"], version), pc.equal(rows["encoder_version"], version))
        )
        known = {tuple(row.values()) for row in own.select(key).to_pylist()}
        missing = [
            row | {"encoder_version": version, "created_timestamp": self.now}
            for row in others.to_pylist()
            if tuple(row[name] for name in key) not in known
        ]
        half = len(missing) // 2
        for part in (missing[:half], missing[half:]):
            if part:
                self.interrupt()
                delta.append(path, pa.Table.from_pylist(part, delta.open_dataset(path).schema))


def make(folder: Path, redis_address: str | None = None, products: int = 40) -> Settings:
    """Return the small shop with rows of OLD, materialized into LMDB or Redis. OLD is in production."""
    settings = world.deployment(folder)
    if redis_address is not None:
        text = settings.file.read_text().replace("LMDBOnlineStore", "RedisOnlineStore")
        settings.file.write_text(text.replace(f"path: {folder}/online", f"connection_string: {redis_address}"))
        settings = config.load(settings.file)
    world.write(world.small_shop(products=products), settings)
    production.record_first_version(settings.offline, OLD, LISTED)
    store = open_feature_store(settings)
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    store.materialize_incremental(RANKED)
    return settings


def copy(settings: Settings, folder: Path) -> Settings:
    """Return a copy of a deployment in LMDB, in another folder."""
    shutil.copytree(settings.file.parent, folder)
    file = folder / settings.file.name
    file.write_text(settings.file.read_text().replace(str(settings.file.parent), str(folder)))
    return config.load(file)


def write_gate(
    file: Path, *, passed: bool = True, candidate: str = NEW, version: str = OLD, created: datetime = RANKED
) -> Path:
    gate = Gate("coverage of product_tags", passed, 0.5, 0.9, "half of the rows")
    GateReport(candidate, version, created, (gate,)).write(file)
    return file


def context(settings: Settings, run_step: RunStep) -> UpgradeContext:
    return UpgradeContext(settings, run_step, clock=lambda: RANKED, report=lambda line: None)


def advance(settings: Settings, steps: Steps, gate: Path | None = None) -> production.Upgrade:
    return machine.advance(context(settings, steps), gate=gate)


def rollback(settings: Settings, steps: Steps) -> production.Upgrade:
    return machine.rollback(context(settings, steps))


def catch_up(settings: Settings, steps: Steps) -> production.Upgrade:
    return machine.catch_up(context(settings, steps))


def start(settings: Settings) -> production.Upgrade:
    return machine.start(settings, NEW, OPTIONS, now=datetime.now(RANKED.tzinfo))


def count_rows(settings: Settings) -> dict[str, int]:
    return {table: len(delta.read(settings.table(table))) for table in TABLES}
