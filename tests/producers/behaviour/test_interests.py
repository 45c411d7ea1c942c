"""`user_interest`: equal in batch and click by click, correct in time, written once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.features import interest
from feature_repo.features.interest import Clicks
from feature_repo.offline import delta, training_set
from producers import maintenance
from producers.behaviour import interest_digest, interest_rows, interests
from tests.feature_repo.features import world
from tests.feature_repo.features.world import DAY, ENCODER, LISTED

NOW = datetime(2026, 9, 1, tzinfo=UTC)
START_US = int(LISTED.timestamp() * 1e6)
PRODUCTS, USERS = 30, 12
TIMESTAMP = pa.timestamp("us", tz="UTC")


def make_log(seed: int = 0, rows: int = 1500) -> pa.Table:
    """Return impressions of a few weeks; some clicks of a user have the same microsecond."""
    rng = np.random.default_rng(seed)
    user = (rng.random(rows) ** 2 * USERS).astype(int)
    time = START_US + rng.integers(-2 * DAY, 60 * DAY, rows) // 1_000_000 * 1_000_000
    time[: rows // 5] = START_US + rng.integers(0, 60, rows // 5) * DAY
    order = np.argsort(time, kind="stable")
    return pa.table(
        {
            "impression_id": [f"i{i}" for i in range(rows)],
            "user_id": [f"u{u}" for u in user],
            "product_id": [f"p{p}" for p in rng.integers(0, PRODUCTS + 2, rows)],
            "event_timestamp": pa.array(time, TIMESTAMP),
            "clicked": pa.array((rng.random(rows) < 0.3).astype(np.int8)),
        }
    ).take(pa.array(order))


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A deployment whose products change vector and tags twice; some have no vector or no tags."""
    settings = world.deployment(tmp_path)
    for version, offset in enumerate([0, 20, 40]):
        shop = world.small_shop(seed=version, products=PRODUCTS)
        since = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(days=offset)
        world.write_products(shop, settings, since)
    return settings


def run(store: Settings, log: pa.Table, recompute: bool = False, now: datetime = NOW) -> interests.InterestSummary:
    file = store.file.parent / "log.parquet"
    pq.write_table(log, file)
    return interests.make_interests(
        store, file, encoder_version=None, recompute=recompute, now=now, progress=lambda done, total: None
    )


def read_rows(store: Settings) -> pa.Table:
    keys = [(name, "ascending") for name in ("user_id", "event_timestamp", "created_timestamp")]
    return delta.read(store.table("user_interest")).sort_by(keys).combine_chunks()


def compute_click_by_click(store: Settings, log: pa.Table) -> pa.Table:
    """Return the rows that the clicks give one after the other, as in streaming."""
    clicks = log.filter(pc.equal(log["clicked"], 1))
    clicks = clicks.sort_by([("user_id", "ascending"), ("event_timestamp", "ascending"), ("product_id", "ascending")])
    embedding = delta.read(store.table("product_embedding")).to_pylist()
    tags = delta.read(store.table("product_tags")).to_pylist()
    rows, state, before = [], None, None
    for click in clicks.to_pylist():
        if click["user_id"] != before:
            state, before = None, click["user_id"]
        time = np.array([int(click["event_timestamp"].timestamp() * 1e6)])
        vector, tag = find_valid(embedding, click), find_valid(tags, click)
        event = Clicks(
            to_matrix(vector and vector["fused_vector"], world.WIDTH),
            to_matrix(tag and tag["child_age_distribution"], 5),
            to_matrix(tag and tag["child_gender_distribution"], 3),
            time,
        )
        state = interest_digest.update_interest(state, click["product_id"], event)
        if rows and rows[-1]["user_id"][0].as_py() == before and state.times[:1] == state.times[1:2]:
            rows.pop()
        rows.append(interest_rows.build_row(before, state, ENCODER, NOW))
    return pa.concat_tables(rows).combine_chunks()


def find_valid(rows: list[dict], click: dict) -> dict | None:
    """Return the row that was valid at the time of the click."""
    mine = [row for row in rows if row["product_id"] == click["product_id"]]
    mine = [row for row in mine if row["event_timestamp"] <= click["event_timestamp"]]
    return max(mine, key=lambda row: row["event_timestamp"]) if mine else None


def to_matrix(value: list | None, width: int) -> np.ndarray:
    return np.full((1, width), np.nan, np.float32) if value is None else np.array([value], np.float32)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_batch_gives_the_same_rows_as_click_by_click_bit_for_bit(store: Settings, seed: int) -> None:
    log = make_log(seed)
    done = run(store, log)
    rows = read_rows(store)
    assert rows.equals(
        compute_click_by_click(store, log).sort_by([("user_id", "ascending"), ("event_timestamp", "ascending")])
    )
    assert done.added == len(rows)
    assert done.clicks == pc.sum(log["clicked"]).as_py() > len(rows)  # some clicks have the same microsecond
    assert 0 < done.without_vector < done.clicks
    assert max(map(len, rows["recent_products"].to_pylist())) == schema.HISTORY_LENGTH


def test_a_stored_row_can_be_parsed_to_continue_from_it(store: Settings) -> None:
    run(store, make_log())
    rows = read_rows(store).to_pylist()
    at = next(i for i in range(40, len(rows)) if rows[i]["user_id"] == rows[i + 1]["user_id"])
    state = interest_rows.parse_row(rows[at], world.WIDTH, 5)
    assert interest_rows.build_row(rows[at]["user_id"], state, ENCODER, NOW).to_pylist() == [rows[at]]


def test_a_second_run_adds_nothing_and_a_longer_log_adds_its_new_versions(store: Settings) -> None:
    log = make_log()
    run(store, log.slice(0, 1000))
    before = read_rows(store)
    again = run(store, log.slice(0, 1000))
    assert (again.added, again.already_stored) == (0, len(before))
    more = run(store, log)
    assert more.already_stored == len(before)
    assert read_rows(store).equals(compute_click_by_click(store, log))
    assert run(store, log, recompute=True, now=NOW + timedelta(seconds=1)).added == len(read_rows(store)) // 2


def test_a_late_click_writes_the_later_versions_of_its_user_again(store: Settings) -> None:
    log = make_log()
    clicks = np.flatnonzero(log["clicked"].to_numpy())
    late = int(clicks[len(clicks) // 2])
    without = log.filter(pa.array(np.arange(len(log)) != late))
    run(store, without)
    before = len(read_rows(store))
    done = run(store, log, now=NOW + timedelta(seconds=1))
    user, time = (log[name][late].as_py() for name in ("user_id", "event_timestamp"))
    newest = pa.table(
        read_rows(store)
        .to_pandas()
        .groupby(["user_id", "event_timestamp"])
        .tail(1)
        .pipe(pa.Table.from_pandas, preserve_index=False)
    )
    assert len(read_rows(store)) == before + done.added
    added = [row for row in read_rows(store).to_pylist() if row["created_timestamp"] > NOW]
    assert {row["user_id"] for row in added} == {user}
    assert min(row["event_timestamp"] for row in added) == time + timedelta(microseconds=1)
    expected = compute_click_by_click(store, log)
    assert newest["clicks"].to_pylist() == expected["clicks"].to_pylist()
    assert newest["recent_products"].to_pylist() == expected["recent_products"].to_pylist()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_no_version_changes_when_the_future_is_deleted(store: Settings, tmp_path: Path, share: float) -> None:
    log = make_log()
    run(store, log)
    cutoff = log["event_timestamp"][int(share * len(log))].as_py()
    past = pc.field("event_timestamp") <= pa.scalar(cutoff, TIMESTAMP)
    cut = world.deployment(tmp_path / "cut")
    for table in ("product_embedding", "product_tags"):
        delta.append(cut.table(table), delta.read(store.table(table)).filter(past))
    run(cut, log.filter(past))
    whole = read_rows(store)
    kept = whole.filter(pc.field("event_timestamp") <= pa.scalar(cutoff + timedelta(microseconds=1), TIMESTAMP))
    assert len(kept)
    assert kept.equals(read_rows(cut))


def count_point_in_time_errors(store: Settings, log: pa.Table, shift: int = 0) -> int:
    """Count impressions whose joined version does not have exactly the clicks strictly before."""
    table = delta.read(store.table("user_interest"))
    times = pa.array(table["event_timestamp"].cast(pa.int64()).to_numpy() + shift, TIMESTAMP)
    table = table.set_column(table.column_names.index("event_timestamp"), "event_timestamp", times)
    view = training_set.ViewTable(
        "user_interest", pa.dataset.dataset(table), {"user_id": "user_id"}, {"clicks": "clicks"}, "event_timestamp"
    )
    joined = training_set.join(log, "event_timestamp", [view]).to_table()["clicks"].fill_null(0).to_pylist()
    rows = log.to_pylist()
    clicks = [row for row in rows if row["clicked"]]
    expected = [
        sum(c["user_id"] == r["user_id"] and c["event_timestamp"] < r["event_timestamp"] for c in clicks) for r in rows
    ]
    return sum(actual != wanted for actual, wanted in zip(joined, expected, strict=True))


def test_an_impression_is_joined_with_the_clicks_strictly_before_it(store: Settings) -> None:
    log = make_log(rows=600)
    run(store, log)
    assert count_point_in_time_errors(store, log) == 0


@pytest.mark.parametrize("shift", [DAY, -DAY, -1])
def test_the_count_detects_features_that_are_too_late_or_too_early(store: Settings, shift: int) -> None:
    log = make_log(rows=600)
    run(store, log)
    assert count_point_in_time_errors(store, log, shift) > 0


def test_an_interrupted_run_is_completed_by_the_next(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    monkeypatch.setattr(interests, "CLICKS_PER_COMMIT", 60)
    append, commits = delta.append, []

    def fail_after_two(path: Path, rows: pa.Table) -> int:
        if len(commits) >= 2:  # two groups are written concurrently
            raise VitrineError("the disk is full")
        commits.append(len(rows))
        return append(path, rows)

    monkeypatch.setattr(delta, "append", fail_after_two)
    with pytest.raises(VitrineError, match="the disk is full"):
        run(store, log)
    assert len(read_rows(store)) == sum(commits) > 0
    monkeypatch.setattr(delta, "append", append)
    done = run(store, log)
    assert done.already_stored == sum(commits)
    assert read_rows(store).equals(compute_click_by_click(store, log))


def test_a_forgotten_user_has_no_version_and_users_who_clicked_a_forgotten_product_are_counted(store: Settings) -> None:
    log = make_log()
    run(store, log)
    users = {row["user_id"] for row in read_rows(store).to_pylist() if "p3" in row["recent_products"]}
    assert 0 < len(users) <= USERS
    done = maintenance.forget(store, products=["p3"], users=["u1"])
    assert done.offline["user_interest"] > 0
    assert done.users_with_clicks == len(users - {"u1"})
    assert "u1" not in read_rows(store)["user_id"].to_pylist()
    assert maintenance.forget(store, products=["no such"], users=[]).users_with_clicks == 0


def test_a_log_without_clicks_adds_nothing(store: Settings) -> None:
    log = make_log()
    run(store, log)
    before = read_rows(store)
    done = run(store, log.filter(pc.equal(log["clicked"], 0)))
    assert (done.users, done.clicks, done.added, done.already_stored) == (0, 0, 0, 0)
    assert read_rows(store).equals(before)


def test_histories_equal_their_clicks_one_by_one_also_with_users_without_clicks() -> None:
    rng = np.random.default_rng(0)
    starts = np.array([0, 0, 7, 8, 8, 40, 43, 43])
    rows = int(starts[-1])
    values = [rng.random((rows, width), np.float32) for width in (4, 5, 3)]
    for each in values:
        each[rng.random(rows) < 0.4] = np.nan
    time = np.concatenate([START_US + np.sort(rng.integers(-DAY, 90 * DAY, size)) for size in np.diff(starts)])
    clicks = Clicks(*values, time)
    means = interest.compute_interest_histories(clicks, starts)
    for user in range(len(starts) - 1):
        state = interest.InterestMeans.empty(1, 4, 5)
        for row in range(starts[user], starts[user + 1]):
            state = interest.add_click(state, clicks.take(slice(row, row + 1)))
            for name in interest.InterestMeans.__dataclass_fields__:
                assert getattr(means, name)[row].tobytes() == getattr(state, name).tobytes()


def test_a_first_click_before_1970_has_the_weight_of_any_first_click() -> None:
    vector, ages, genders = (np.ones((1, width), np.float32) for width in (2, 5, 3))
    long_ago = Clicks(vector, ages, genders, np.array([-40 * 365 * DAY]))
    means = interest.add_click(interest.InterestMeans.empty(1, 2, 5), long_ago)
    assert (means.vector_weight, means.ages_weight, means.genders_weight) == (1, 1, 1)
    assert np.isfinite(means.ages).all()
