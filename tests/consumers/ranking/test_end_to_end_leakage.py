"""Leakage tests of the path from a log through Feast to a ranker: mutations that must be found, and a truncation.

The small shop's products change their vectors, tags and codes. Every user sees every product once.
"""

import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from consumers import cli
from consumers.ranking.joined_log import read_and_join
from consumers.ranking.leakage import find_future_rows
from consumers.ranking.training_set import JoinedView, RankingTrainingSet
from feature_repo import console, definitions
from feature_repo.config import Settings
from feature_repo.offline import delta
from feature_repo.schema import TIMESTAMP
from feature_repo.stores.feature_store import open_feature_store
from producers.behaviour.interests import make_interests
from producers.behaviour.neighbours import make_neighbours
from tests.feature_repo.features import world
from tests.oracle import Version, as_of

NOW = datetime(2026, 9, 1, tzinfo=UTC)
DAY = timedelta(days=1)
USERS, PRODUCTS, DAYS = 40, 30, 60
KEYS = {
    "product_catalogue": "product_id",
    "product_embedding": "product_id",
    "product_tags": "product_id",
    "product_codes": "product_id",
    "product_neighbours": "product_id",
    "user_interest": "user_id",
}


def make_log() -> pa.Table:
    """A log in which every user sees every product once, some before it is listed, a tenth at midnight."""
    generator = np.random.default_rng(0)
    user, product = (each.ravel() for each in np.meshgrid(np.arange(USERS), np.arange(PRODUCTS)))
    minute = generator.integers(-2 * 24 * 60, DAYS * 24 * 60, len(user))
    minute[::10] = minute[::10] // (24 * 60) * 24 * 60
    order = np.argsort(minute, kind="stable")
    table = pa.table(
        {
            "impression_id": [f"i{i}" for i in range(len(user))],
            "user_id": [f"u{u}" for u in user[order]],
            "product_id": [f"p{p}" for p in product[order]],
            "event_timestamp": pa.array([world.LISTED + timedelta(minutes=int(m)) for m in minute[order]], TIMESTAMP),
            "clicked": pa.array((generator.random(len(user)) < 0.3).astype(np.int8)),
        }
    )
    return table


LOG = make_log()


def save(log: pa.Table, file: Path) -> Path:
    pq.write_table(log, file)
    return file


def deployed(folder: Path, like: Settings | None = None) -> Settings:
    """A deployment without rows. Its definitions are applied, or copied from another deployment."""
    settings = world.deployment(folder)
    if like is None:
        open_feature_store(settings).apply([getattr(definitions, name) for name in definitions.__all__])
    else:
        shutil.copy(like.file.parent / "registry.db", folder)
    return settings


def follow(store: Settings, log: pa.Table) -> None:
    """Write the tables that are computed from a log."""
    file = save(log, store.file.parent / "followed.parquet")
    make_interests(store, file, encoder_version=None, recompute=False, now=NOW, progress=lambda *_: None)
    make_neighbours(store, file, encoder_version=None, interval=5 * DAY, top_k=5, now=NOW, progress=lambda *_: None)


def stock(store: Settings, log: pa.Table) -> None:
    """Write the tables of every view, with three versions of each product."""
    for version in range(3):
        since = world.LISTED + 20 * version * DAY
        changed = world.small_shop(seed=version, products=PRODUCTS)
        world.write_products(changed, store, since)
        world.write_codes(changed, store, since)
        price = [9.5 + version + number for number in range(PRODUCTS)]
        world.write_rows(store, "product_catalogue", [since] * PRODUCTS, product_id=changed.products, price=price)
    follow(store, log)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = deployed(tmp_path_factory.mktemp("shop"))
    stock(settings, LOG)
    return settings


def joined(store: Settings, folder: Path) -> RankingTrainingSet:
    return read_and_join(store, save(LOG, folder / "log.parquet"), "ranking", NOW)[0]


def count_wrong_versions(data: RankingTrainingSet, shop: Settings) -> dict[str, int]:
    """Count, for each view, the impressions with another version than the shop had at their time, one by one."""
    return {name: _count_wrong(data, name, view, delta.read(shop.table(name))) for name, view in data.views.items()}


def _count_wrong(data: RankingTrainingSet, name: str, view: JoinedView, table: pa.Table) -> int:
    rows = table.to_pylist()
    owned: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        owned.setdefault(row[KEYS[name]], []).append(index)
    compared = [column for column in view.versions.column_names if column in table.column_names]
    assert compared
    joined_rows = view.versions.select(compared).to_pylist()
    faults = 0
    for number, shown in enumerate(data.impressions.to_pylist()):
        own_rows = owned.get(shown[KEYS[name]], [])
        versions = [Version((), rows[index]["event_timestamp"], rows[index]["created_timestamp"]) for index in own_rows]
        held = as_of(versions, (), shown["event_timestamp"])
        wanted = {column: rows[own_rows[held]][column] for column in compared} if held >= 0 else None
        faults += (joined_rows[view.row_index[number]] if view.row_index[number] >= 0 else None) != wanted
    return faults


def test_every_impression_has_the_version_of_its_time_from_every_view(shop: Settings, tmp_path: Path) -> None:
    data = joined(shop, tmp_path)
    assert data.views.keys() == KEYS.keys()
    assert count_wrong_versions(data, shop) == dict.fromkeys(KEYS, 0)
    assert find_future_rows(data) == []


def test_the_point_in_time_check_finds_views_shifted_by_a_day(shop: Settings, tmp_path: Path) -> None:
    late = deployed(tmp_path / "late", shop)
    for name in KEYS:
        table = delta.read(shop.table(name))
        moved = pc.add(table["event_timestamp"], pa.scalar(DAY)).cast(TIMESTAMP)
        index = table.column_names.index("event_timestamp")
        delta.append(late.table(name), table.set_column(index, "event_timestamp", moved))
    assert min(count_wrong_versions(joined(late, tmp_path), shop).values()) > 0


def test_find_future_rows_names_every_view_joined_a_day_too_early(shop: Settings, tmp_path: Path) -> None:
    data = joined(shop, tmp_path)
    views = {
        name: JoinedView(view.versions, view.timestamp_us + 86_400_000_000, view.row_index)
        for name, view in data.views.items()
    }
    assert KEYS.keys() <= {leak.feature for leak in find_future_rows(data.with_views(views))}


def test_future_clicks_in_the_interests_end_the_command_with_1_and_name_the_feature(
    shop: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    yesterday = pc.subtract(LOG["event_timestamp"], pa.scalar(DAY)).cast(TIMESTAMP)
    leaking = deployed(tmp_path / "leaking", shop)
    stock(leaking, LOG.set_column(3, "event_timestamp", yesterday))
    log = save(LOG, tmp_path / "log.parquet")
    figures = tmp_path / "lift.json"
    line = f"consume lift --impressions {log} --seeds 1 --permutations 1 --json {figures} --store {leaking.file}"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit) as ended:
        console.run_command_line(cli.app)
    message = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 1
    assert message.startswith("error: user_interest.recent_products leaks: alone it ranks clicks at an AUC of 1.000")
    assert not figures.exists()


def ranked(store: Settings, log: pa.Table) -> pd.DataFrame:
    """All features that Feast returns for a log, on-demand features included; requests carry the history."""
    feast = open_feature_store(store)
    keys = log.select(["user_id", "product_id", "event_timestamp"]).to_pandas()
    recent = feast.get_historical_features(keys, ["user_interest:recent_products"]).to_df()["recent_products"]
    vectors, codes = (delta.read(store.table(name)).to_pylist() for name in ("product_embedding", "product_codes"))
    history = {"history_vectors": [], "history_codes": []}
    for at, products in zip(log["event_timestamp"].to_pylist(), recent, strict=True):
        clicked = [] if products is None else list(products)
        of_vectors = [_then(vectors, product, at, "fused_vector", [np.nan] * world.WIDTH) for product in clicked]
        of_codes = [_then(codes, product, at, "codes", [-1] * world.LEVELS) for product in clicked]
        history["history_vectors"].append(np.ravel(of_vectors).tolist())
        history["history_codes"].append(np.ravel(of_codes).astype(int).tolist())
    timestamps_us = log["event_timestamp"].cast(pa.int64()).to_numpy()
    rows = keys.assign(**history, ranked_at=timestamps_us)
    service = feast.get_feature_service("ranking_with_affinity")
    return feast.get_historical_features(rows, service, full_feature_names=True).to_df()


def _then(rows: list[dict], product: str, at: datetime, column: str, nothing: list) -> list:
    mine = [row for row in rows if row["product_id"] == product and row["event_timestamp"] <= at]
    return max(mine, key=lambda row: row["event_timestamp"])[column] if mine else nothing


def test_no_feast_feature_changes_when_later_rows_are_deleted(shop: Settings, tmp_path: Path) -> None:
    cutoff = LOG["event_timestamp"][len(LOG) // 2].as_py()
    past = pc.field("event_timestamp") <= pa.scalar(cutoff, TIMESTAMP)
    cut = deployed(tmp_path / "cut", shop)
    for name in KEYS:
        if name not in ("user_interest", "product_neighbours"):
            delta.append(cut.table(name), delta.read(shop.table(name)).filter(past))
    follow(cut, LOG.filter(past))
    last_rows = LOG.filter(past)[-200:]
    whole, truncated = ranked(shop, last_rows), ranked(cut, last_rows)
    features = [name for name in whole if "__" in name]
    assert {name.split("__")[0] for name in features} == {*KEYS, "user_product_affinity"}
    assert [name for name in features if not equal_bits(whole[name], truncated[name])] == []


def equal_bits(left: pd.Series, right: pd.Series) -> bool:
    """Whether two columns are equal bit for bit; text and lists are compared by value."""
    if left.dtype == object:
        return pa.array(left).equals(pa.array(right))
    return left.to_numpy().tobytes() == right.to_numpy().tobytes()
