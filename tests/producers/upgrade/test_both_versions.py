"""While an upgrade runs, new products get vectors of both versions, and the backfill begins with the most served."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_repo import console, schema
from feature_repo.config import Settings
from feature_repo.console import LogFormat, LogOptions
from feature_repo.offline import delta, production
from feature_repo.offline.production import State
from producers import cli
from producers.embeddings.run import embed_catalogue
from producers.embeddings.served_order import list_most_served
from producers.encoders import checkpoint_version
from producers.pipeline.plan import load_pipeline
from producers.pipeline.run import find_upgrade_step, run_day
from producers.upgrade.versions import UpgradeOptions
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path, encoder: Path) -> Settings:
    """Six products, encoded by `old`; `new` has the same weights and another version."""
    settings = open_deployment(tmp_path)
    for name in ("old", "new"):
        shutil.copytree(encoder, tmp_path / name)
    ingest(settings, *({"product_id": f"p{i}", "title": f"红裙{i}", "image": None} for i in range(6)))
    embed(settings, "old")
    return settings


def embed(settings: Settings, name: str, *options: str) -> str:
    line = ["embeddings", "--encoder", str(settings.file.parent / name), *options, "--store", str(settings.file)]
    return CliRunner().invoke(cli.app, line, catch_exceptions=False).output


def version(settings: Settings, name: str) -> str:
    return checkpoint_version.read_version(str(settings.file.parent / name))


def set_state(settings: Settings, state: State, former_encoder: str | None = "old") -> None:
    """Record a state of an upgrade from `old` to `new`, at the current time."""
    folder = settings.file.parent
    versions = [version(settings, name) for name in ("old", "new")]
    options = UpgradeOptions(str(folder / "new"), former_encoder and str(folder / former_encoder), ())
    production.record_step(
        settings.offline,
        production.read_current(settings.offline),
        state=state,
        production_version=versions[state is State.CUT_OVER],
        candidate_version=versions[state is not State.CUT_OVER],
        options=options.to_json(),
        created=datetime.now(UTC),
    )


def encoded(settings: Settings, name: str) -> list[str]:
    rows = delta.read(settings.table(schema.EMBEDDING_TABLE))
    return sorted(rows.filter(pa.compute.field("encoder_version") == version(settings, name))["product_id"].to_pylist())


def add_product(settings: Settings, product: str) -> None:
    ingest(settings, {"product_id": product, "title": f"蓝裙{product}", "image": None}, now=datetime.now(UTC))


OLD_PRODUCTS = [f"p{i}" for i in range(6)]


def test_a_product_that_comes_during_the_backfill_gets_both_versions_and_the_backfill_writes_the_others(
    store: Settings,
) -> None:
    set_state(store, State.BACKFILLING)
    add_product(store, "x")
    output = embed(store, "old")
    assert f"{version(store, 'new')}: 1 products encoded" in output
    assert (encoded(store, "old"), encoded(store, "new")) == ([*OLD_PRODUCTS, "x"], ["x"])
    embed(store, "new", "--encoder-version", version(store, "new"))
    assert encoded(store, "new") == [*OLD_PRODUCTS, "x"]
    assert len(delta.read(store.table(schema.EMBEDDING_TABLE))) == 14


@pytest.mark.parametrize(
    ("state", "encoder_in_use", "other"),
    [(State.SHADOW, "old", "new"), (State.CUT_OVER, "new", "old"), (State.CUT_OVER, "old", "new")],
)
def test_after_the_backfill_the_other_version_gets_what_it_lacks(
    store: Settings, state: State, encoder_in_use: str, other: str
) -> None:
    embed(store, "new")
    set_state(store, state)
    add_product(store, "x")
    embed(store, encoder_in_use)
    assert encoded(store, other) == encoded(store, encoder_in_use) == [*OLD_PRODUCTS, "x"]


def test_without_a_running_upgrade_or_its_checkpoint_one_version_is_written(store: Settings) -> None:
    for number, state in enumerate((State.STAGED, State.ROLLED_BACK, State.RETIRING)):
        set_state(store, state)
        add_product(store, f"x{number}")
        embed(store, "old")
        assert encoded(store, "new") == []
    embed(store, "new", "--encoder-version", version(store, "new"))
    set_state(store, State.CUT_OVER, former_encoder=None)
    add_product(store, "y")
    assert f"not encoded with {version(store, 'old')}, because" in embed(store, "new")
    assert "y" not in encoded(store, "old")


def write_log(file: Path, shown: Sequence[tuple[str, int]]) -> Path:
    products = [product for product, count in shown for _ in range(count)]
    rows = [
        {"impression_id": str(i), "user_id": f"u{i}", "product_id": product, "event_timestamp": NOW, "clicked": 0}
        for i, product in enumerate(products)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema.IMPRESSIONS), file)
    return file


def test_the_most_served_products_are_encoded_first_and_a_killed_run_goes_on(store: Settings, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.parquet", [("p1", 2), ("p4", 9), ("p3", 5), ("unknown", 1), ("p0", 1)])
    first = list_most_served(store, log, NOW + timedelta(days=1))
    assert len(first) == 3
    seen = []

    def stop_after_two_groups(done: int, total: int) -> None:
        seen.append(encoded(store, "new"))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_catalogue(store, str(tmp_path / "new"), now=NOW, progress=stop_after_two_groups, first=first)
    assert seen == [["p4"], ["p1", "p3", "p4"]]
    output = embed(store, "new", "--impressions", str(log))
    assert "3 products encoded, 3 up to date" in output
    assert encoded(store, "new") == OLD_PRODUCTS


@pytest.mark.parametrize(
    ("state", "has_step", "note"),
    [
        (State.STAGED, False, "is staged: `produce upgrade advance` writes what it lacks"),
        (State.BACKFILLING, False, "is backfilling: `produce upgrade advance`"),
        (State.SHADOW, True, None),
        (State.CUT_OVER, True, None),
        (State.ROLLED_BACK, False, "is rolled back and gets no rows"),
    ],
)
def test_a_day_keeps_the_other_version_up_to_date_or_says_that_it_does_not(
    store: Settings, state: State, has_step: bool, note: str | None
) -> None:
    assert find_upgrade_step(store) == ((), None)
    set_state(store, state)
    steps, remark = find_upgrade_step(store)
    assert [step.command for step in steps] == ([("produce", "upgrade", "catch-up")] if has_step else [])
    assert (remark is None) if note is None else (remark is not None and note in remark)


def test_the_summary_of_a_day_counts_the_rows_of_both_versions(store: Settings) -> None:
    set_state(store, State.BACKFILLING)
    add_product(store, "x")
    file = store.file.parent / "vitrine.toml"
    file.write_text('[pipeline]\nsteps = ["produce embeddings --encoder old"]\n')
    summary = run_day(store, load_pipeline(file, {}), {}, now=datetime.now(UTC))
    assert encoded(store, "new") == ["x"]
    assert summary.steps[0].counts["rows"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--former-encoder", "new"], "expected old@"),
        (["--step", "embeddings --impresions log.parquet"], "--impresions"),
        (["--step", "codes --levels many"], "--levels"),
    ],
)
def test_options_that_cannot_be_used_are_refused_at_the_start_and_not_after_the_backfill(
    store: Settings, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(store.file.parent)
    line = ["upgrade", "start", "--encoder", "new", *options, "--store", str(store.file)]
    result = CliRunner().invoke(cli.app, line)
    assert result.exit_code != 0
    assert message in f"{result.output} {result.exception}"
    current = production.read_current(store.offline)
    assert current is not None
    assert current.state is State.IN_PRODUCTION


def test_the_steps_of_an_upgrade_log_as_the_command_was_told(store: Settings) -> None:
    set_state(store, State.BACKFILLING)
    try:
        CliRunner().invoke(cli.app, ["--log-format", "json", "upgrade", "advance", "--store", str(store.file)])
        assert encoded(store, "new") == OLD_PRODUCTS
        assert console.current_log_options().log_format is LogFormat.JSON
    finally:
        LogOptions().apply()
