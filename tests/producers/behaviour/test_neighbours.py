"""`product_neighbours`: equal to a loop over the log, without the future and without the product itself."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.errors import UsageError
from feature_repo.features.neighbours import NAMES, PRIOR_STRENGTH
from feature_repo.offline import delta
from producers import cli
from producers.behaviour import neighbours
from tests.feature_repo.features import world

NOW = datetime(2026, 9, 1, tzinfo=UTC)
START = datetime(2026, 1, 5, tzinfo=UTC)
LONG_AGO = datetime.min.replace(tzinfo=UTC)
DAY = timedelta(days=1)
PRODUCTS, DAYS, K = 40, 12, 5
TIMESTAMP = pa.timestamp("us", tz="UTC")


def make_unit_vectors(rng: np.random.Generator, rows: int) -> np.ndarray:
    vectors = rng.normal(size=(rows, world.WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_log(seed: int = 0, rows: int = 1200) -> pa.Table:
    rng = np.random.default_rng(seed)
    minutes = np.sort(rng.integers(0, DAYS * 24 * 60, rows)).tolist()
    # A quarter of the products has no impressions; some impressions are of products without rows.
    product = (rng.random(rows) ** 2 * PRODUCTS * 0.75).astype(int) + np.where(rng.random(rows) < 0.05, 100, 0)
    return pa.table(
        {
            "impression_id": [f"i{i}" for i in range(rows)],
            "user_id": ["u"] * rows,
            "product_id": [f"p{p}" for p in product],
            "event_timestamp": pa.array([START + timedelta(minutes=m) for m in minutes], TIMESTAMP),
            "clicked": pa.array((rng.random(rows) < 0.2).astype(np.int8)),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A deployment with products listed before and within the log; some change vector, price or tags."""
    settings = world.deployment(tmp_path)
    fill(settings, datetime.max.replace(tzinfo=UTC))
    return settings


def fill(settings: Settings, until: datetime, since: datetime = LONG_AGO) -> None:
    """Write what changes after `since` and up to `until`."""
    rng = np.random.default_rng(4)
    vectors, changed = make_unit_vectors(rng, PRODUCTS), make_unit_vectors(rng, 6)
    listed = [START + timedelta(hours=int(h)) for h in rng.integers(-240, DAYS * 24, PRODUCTS)]
    listed[3] = START + 2 * DAY  # exactly at the start of an interval
    ages = rng.dirichlet(np.ones(5), PRODUCTS).astype(np.float32)
    prices = rng.uniform(1, 100, PRODUCTS)
    versions = [(i, at, vectors[i], prices[i]) for i, at in enumerate(listed)]
    for i in range(6):
        at = max(listed[i], START) + timedelta(days=3, hours=5 * i)
        versions.append((i, at, changed[i], prices[i] * 2))
    versions = [one for one in versions if since < one[1] <= until]
    names, times = [f"p{i}" for i, *_ in versions], [at for _, at, *_ in versions]
    fused, price = [vector for *_, vector, _ in versions], [one for *_, one in versions]
    world.write_rows(settings, "product_embedding", times, product_id=names, fused_vector=fused)
    world.write_rows(settings, "product_catalogue", times, product_id=names, price=price)
    tagged = [i for i in range(PRODUCTS) if i % 5 and since < listed[i] <= until]
    times = [listed[i] for i in tagged]
    mixes = [ages[i] for i in tagged]
    world.write_rows(
        settings, "product_tags", times, product_id=[f"p{i}" for i in tagged], child_age_distribution=mixes
    )


def run(
    store: Settings,
    log: pa.Table,
    interval: timedelta = DAY,
    *,
    top_k: int = K,
    recompute: bool = False,
    now: datetime = NOW,
) -> neighbours.NeighbourSummary:
    file = store.file.parent / "log.parquet"
    pq.write_table(log, file)
    return neighbours.make_neighbours(
        store,
        file,
        encoder_version=None,
        interval=interval,
        top_k=top_k,
        recompute=recompute,
        now=now,
        progress=lambda done, total: None,
    )


def read_rows(store: Settings) -> pa.Table:
    keys = [("product_id", "ascending"), ("event_timestamp", "ascending")]
    return delta.read(store.table("product_neighbours")).sort_by(keys).combine_chunks()


def compute_slowly(tables: dict[str, list[dict]], log: list[dict], product: str, since: datetime) -> dict[str, float]:
    """Return the features of one version, computed from the state at the start of its interval."""
    start = datetime.fromtimestamp(since.timestamp() // 86_400 * 86_400, UTC)
    past = [row for row in log if row["event_timestamp"] < start]

    def find_valid(table: str, of: str, at: datetime, column: str) -> object:
        rows = [row for row in tables[table] if row["product_id"] == of]
        rows = [row for row in rows if row["event_timestamp"] <= at]
        return max(rows, key=lambda row: row["event_timestamp"])[column] if rows else None

    listed = {row["product_id"]: row["event_timestamp"] for row in reversed(tables["product_embedding"])}
    mine = np.array(find_valid("product_embedding", product, since, "fused_vector"), np.float64)
    nearest = []
    for other in sorted({row["product_id"] for row in past} - {product}):
        vector = find_valid("product_embedding", other, start, "fused_vector")
        # Impressions before the listing of a product do not count.
        shown = [
            row for row in past if row["product_id"] == other and other in listed and is_counted(row, listed[other])
        ]
        if vector is not None and shown:
            theirs = np.array(vector, np.float64)
            cosine = mine @ theirs / np.sqrt((mine @ mine) * (theirs @ theirs))
            nearest.append((cosine, len(shown), sum(row["clicked"] for row in shown), other))
    nearest = sorted(nearest, reverse=True)[:K]
    if not nearest:
        return dict.fromkeys(NAMES, float("nan")) | {"neighbours": 0}
    ages = [find_valid("product_tags", other, start, "child_age_distribution") for *_, other in nearest]
    expected = [sum(i * share for i, share in enumerate(age)) for age in ages if age is not None]  # type: ignore[arg-type]
    prices = [np.log1p(find_valid("product_catalogue", other, start, "price")) for *_, other in nearest]
    known = [row for row in past if row["product_id"] != product and row["product_id"] in listed]
    others = [row for row in known if is_counted(row, listed[row["product_id"]])]
    prior = sum(row["clicked"] for row in others) / max(1, len(others))
    clicks, shown_ = sum(one[2] for one in nearest), sum(one[1] for one in nearest)
    return {
        "neighbour_click_rate": (clicks + PRIOR_STRENGTH * prior) / (shown_ + PRIOR_STRENGTH),
        "neighbour_impressions": np.log1p(shown_),
        "neighbour_price": float(np.mean(prices)),
        "neighbour_age": float(np.mean(expected)) if expected else float("nan"),
        "neighbour_similarity": float(np.mean([one[0] for one in nearest])),
        "neighbours": len(nearest),
    }


def read_embeddings(store: Settings) -> list[dict]:
    return delta.read(store.table("product_embedding")).sort_by("event_timestamp").to_pylist()


def is_counted(row: dict, listed: datetime) -> bool:
    """Return whether an impression counts: its product was listed by the end of the day."""
    return listed.timestamp() <= (row["event_timestamp"].timestamp() // 86_400 + 1) * 86_400


def test_every_version_equals_the_slow_computation(store: Settings) -> None:
    log = make_log()
    run(store, log)
    rows = read_rows(store).to_pylist()
    names = ("product_embedding", "product_catalogue", "product_tags")
    tables = {name: delta.read(store.table(name)).sort_by("event_timestamp").to_pylist() for name in names}
    shown = log.to_pylist()
    for row in rows[:: max(1, len(rows) // 60)]:
        expected = compute_slowly(tables, shown, row["product_id"], row["event_timestamp"])
        for name in NAMES:
            actual = float("nan") if row[name] is None else row[name]
            np.testing.assert_allclose(actual, expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{name} of {row}")


def test_there_is_a_row_for_every_embedding_version_and_for_every_day(store: Settings) -> None:
    run(store, make_log())
    rows = {(row["product_id"], row["event_timestamp"]) for row in read_rows(store).to_pylist()}
    listed = {(row["product_id"], row["event_timestamp"]) for row in read_embeddings(store)}
    first = {product: min(since for other, since in listed if other == product) for product, _ in listed}
    daily = {(p, START + day * DAY) for p, since in first.items() for day in range(DAYS) if since <= START + day * DAY}
    assert rows == listed | daily
    assert len(rows) == len(read_rows(store))


@pytest.mark.parametrize("days", [2.3, 7.0, 10.9])
def test_no_version_changes_when_the_future_is_deleted(store: Settings, tmp_path: Path, days: float) -> None:
    log, cutoff = make_log(), START + days * DAY
    run(store, log)
    cut = world.deployment(tmp_path / "cut")
    fill(cut, cutoff)
    before = pc.field("event_timestamp") <= pa.scalar(cutoff, TIMESTAMP)
    run(cut, log.filter(before))
    whole, truncated = read_rows(store).filter(before), read_rows(cut).filter(before)
    assert len(whole) > PRODUCTS
    last = max(
        log["event_timestamp"].filter(pc.less_equal(log["event_timestamp"], pa.scalar(cutoff, TIMESTAMP))).to_pylist()
    )
    covered = pc.field("event_timestamp") <= pa.scalar(last, TIMESTAMP)
    assert whole.filter(covered).equals(truncated.filter(covered))


def test_a_products_own_clicks_are_in_none_of_its_rows(store: Settings, tmp_path: Path) -> None:
    log = make_log()
    run(store, log)
    other = world.deployment(tmp_path / "other")
    fill(other, datetime.max.replace(tzinfo=UTC))
    clicked = log["clicked"].to_numpy().copy()
    mine = np.array(log["product_id"].to_pylist()) == "p1"
    assert mine.sum() > 20
    clicked[mine] = 1 - clicked[mine]
    run(other, log.set_column(log.column_names.index("clicked"), "clicked", pa.array(clicked)))
    own = pc.field("product_id") == "p1"
    assert read_rows(store).filter(own).equals(read_rows(other).filter(own))
    assert not read_rows(store).filter(~own).equals(read_rows(other).filter(~own))


def test_a_second_run_adds_nothing_and_a_longer_log_adds_its_new_versions(store: Settings) -> None:
    log = make_log()
    run(store, log.slice(0, 700))
    before = read_rows(store)
    again = run(store, log.slice(0, 700))
    assert (again.added, again.already_stored) == (0, len(before))
    more = run(store, log)
    assert more.already_stored == len(before)
    assert len(read_rows(store)) == len(before) + more.added
    alone = world.deployment(store.file.parent / "alone")
    fill(alone, datetime.max.replace(tzinfo=UTC))
    run(alone, log)
    assert read_rows(store).equals(read_rows(alone))


def test_an_impression_long_before_all_products_adds_no_empty_intervals(store: Settings) -> None:
    log = make_log()
    lost = pa.table({**dict(zip(log.column_names, log.slice(0, 1).columns, strict=True)), "impression_id": ["lost"]})
    lost = lost.set_column(3, "event_timestamp", pa.array([datetime(1970, 1, 1, tzinfo=UTC)], TIMESTAMP))
    assert run(store, pa.concat_tables([lost, log])).intervals == (10 + 1) + DAYS


def test_the_command_prints_what_it_added_and_refuses_invalid_intervals(store: Settings) -> None:
    pq.write_table(make_log(), store.file.parent / "log.parquet")
    common = ["neighbours", "--impressions", str(store.file.parent / "log.parquet"), "--store", str(store.file)]
    ran = CliRunner().invoke(cli.app, [*common, "--every", "3d"])
    assert ran.exit_code == 0, ran.output
    assert f"{len(read_rows(store)):,} versions added" in ran.output
    for invalid in ("0d", "1", "99999999d"):
        assert isinstance(CliRunner().invoke(cli.app, [*common, "--every", invalid]).exception, UsageError)
