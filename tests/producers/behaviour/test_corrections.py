"""What is known is judged by what it was made from: corrections take effect, and nothing else is written again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from feature_repo import config
from feature_repo.offline import delta
from tests.feature_repo.features import world
from tests.producers.behaviour import test_interests, test_neighbours

NOW = datetime(2026, 9, 1, tzinfo=UTC)
OTHER = "other@2"
Rows = dict[tuple[str, datetime], dict]


class Step:
    """`produce interests` or `produce neighbours` on a small deployment; each run is created an hour after the last."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.table = {"interests": "user_interest", "neighbours": "product_neighbours"}[name]
        self.entity = {"interests": "user_id", "neighbours": "product_id"}[name]
        self.store = world.deployment(folder)
        self.now = NOW
        if name == "neighbours":
            test_neighbours.fill(self.store, datetime.max.replace(tzinfo=UTC))
            return
        for version, offset in enumerate([0, 20]):
            since = datetime.fromtimestamp(test_interests.START_US / 1e6, UTC) + timedelta(days=offset)
            world.write_products(world.small_shop(version, test_interests.PRODUCTS), self.store, since)

    def make_log(self) -> pa.Table:
        return test_interests.make_log(rows=400) if self.name == "interests" else test_neighbours.make_log(rows=400)

    def run(self, log: pa.Table, **options: object) -> int:
        """Run the step; return the number of rows that it has added."""
        self.now += timedelta(hours=1)
        before = self.count()
        module = test_interests if self.name == "interests" else test_neighbours
        module.run(self.store, log, now=self.now, **options)  # type: ignore[arg-type]
        return self.count() - before

    def count(self) -> int:
        path = self.store.table(self.table)
        return len(delta.read(path)) if delta.exists(path) else 0

    def read_newest(self, *, since: datetime | None = None, version: str = world.ENCODER) -> Rows:
        """Return the row created last of each key, without the created timestamp; only those created after `since`."""
        newest: Rows = {}
        stored = delta.read(self.store.table(self.table), where=pc.field("encoder_version") == version)
        for row in stored.sort_by("created_timestamp").to_pylist():
            created = row.pop("created_timestamp")
            if since is None or created > since:
                newest[row[self.entity], row["event_timestamp"]] = row
        return newest

    def switch_encoder(self, version: str) -> None:
        """Write all vectors and tags again, as of `version`, and created last."""
        self.now += timedelta(hours=1)
        for table in ("product_embedding", "product_tags"):
            rows = delta.read(self.store.table(table))
            rows = rows.filter(pc.equal(rows["encoder_version"], world.ENCODER)).to_pylist()
            first = {(row["product_id"], row["event_timestamp"]): row for row in rows}
            changed = [row | {"encoder_version": version, "created_timestamp": self.now} for row in first.values()]
            schema = delta.open_dataset(self.store.table(table)).schema
            delta.append(self.store.table(table), pa.Table.from_pylist(changed, schema))


@pytest.fixture(params=["interests", "neighbours"])
def step(request: pytest.FixtureRequest, tmp_path: Path) -> Step:
    return Step(tmp_path / "store", request.param)


def edit(log: pa.Table, seed: int) -> pa.Table:
    """Return a corrected log: rows that are gone or new, other products and times, clicks that are none."""
    rng = np.random.default_rng(seed)
    rows = log.to_pylist()
    for index in rng.choice(len(rows), 12, replace=False).tolist():
        row = rows[index]
        kind = rng.integers(0, 4)
        if kind == 0:
            row["product_id"] = f"p{rng.integers(0, 30)}"
        elif kind == 1:
            row["event_timestamp"] += timedelta(minutes=int(rng.integers(-3000, 3000)))
        elif kind == 2:
            row["clicked"] = 1 - row["clicked"]
        else:
            row["user_id"] = f"u{rng.integers(0, 12)}"
    kept = [row for row in rows if rng.random() > 0.02]
    return pa.Table.from_pylist(kept, log.schema).sort_by("event_timestamp")


def as_of(rows: Rows, entity: str, at: datetime) -> dict | None:
    times = [time for one, time in rows if one == entity and time <= at]
    return rows[entity, max(times)] if times else None


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_a_corrected_log_gives_what_a_first_run_over_it_gives(step: Step, tmp_path: Path, seed: int) -> None:
    log = step.make_log()
    corrected = edit(log, seed)
    step.run(log)
    assert step.run(corrected) > 0
    assert step.run(corrected) == 0
    fresh = Step(tmp_path / "fresh", step.name)
    fresh.run(corrected)
    expected, actual = fresh.read_newest(), step.read_newest()
    assert {key: actual.get(key) for key in expected} == expected
    if step.name == "interests":  # also at the times of versions whose click is gone
        covered = corrected["event_timestamp"].to_pylist()
        users = {user for user, _ in expected}
        gone = [key for key in actual if key not in expected and key[0] in users and key[1] <= max(covered)]
        for user, time in gone:
            row = actual[user, time] | {"event_timestamp": None}
            wanted = as_of(expected, user, time)
            if wanted is None:
                assert (row["clicks"], row["interest_vector"], row["recent_products"]) == (0, None, [])
            else:
                assert row == wanted | {"event_timestamp": None}
        assert gone
    assert step.run(log) > 0
    original = Step(tmp_path / "original", step.name)
    original.run(log)
    actual = step.read_newest()
    expected = original.read_newest()
    assert {key: actual.get(key) for key in expected} == expected


def test_only_what_depends_on_the_correction_is_written_again(step: Step) -> None:
    log = step.make_log()
    step.run(log)
    clicks = np.flatnonzero(log["clicked"].to_numpy())
    index = int(clicks[len(clicks) // 2])
    rows = log.to_pylist()
    rows[index]["product_id"] = "p7" if rows[index]["product_id"] != "p7" else "p8"
    before = step.now
    step.run(pa.Table.from_pylist(rows, log.schema))
    written = step.read_newest(since=before)
    assert written
    time = rows[index]["event_timestamp"]
    assert min(at for _, at in written) > time - timedelta(days=1)
    if step.name == "interests":
        assert {user for user, _ in written} == {rows[index]["user_id"]}
        assert min(at for _, at in written) == time + timedelta(microseconds=1)


def test_another_encoder_gets_rows_of_its_own_and_those_of_the_first_one_are_kept(step: Step) -> None:
    log = step.make_log()
    first = step.run(log)
    rows = step.read_newest()
    step.switch_encoder(OTHER)
    assert step.run(log) == first
    assert step.read_newest(version=OTHER).keys() == rows.keys()
    step.switch_encoder(world.ENCODER)
    assert step.run(log) == 0
    assert step.read_newest() == rows


def test_a_corrected_vector_takes_effect(step: Step) -> None:
    log = step.make_log()
    step.run(log)
    stored = delta.read(step.store.table("product_embedding")).sort_by("event_timestamp").to_pylist()
    row = next(row for row in stored if row["product_id"] == "p2")
    row |= {"fused_vector": row["fused_vector"][::-1], "created_timestamp": NOW}
    path = step.store.table("product_embedding")
    delta.append(path, pa.Table.from_pylist([row], delta.open_dataset(path).schema))
    assert step.run(log) > 0
    assert step.run(log) == 0


def test_rows_without_a_digest_are_kept_until_they_are_recomputed(step: Step) -> None:
    log = step.make_log()
    first = step.run(log)
    path = step.store.table(step.table)
    old = delta.read(path).drop_columns(["input_digest"])
    delta.overwrite(path, old.slice(0, first - 5))  # as an older version, killed before its last rows, leaves it
    assert "input_digest" not in DeltaTable(str(path)).to_pyarrow_table().column_names
    assert step.run(log) == 5
    assert step.run(log) == 0
    assert step.run(log, recompute=True) == first
    assert step.run(log) == 0
    assert all(row["input_digest"] is not None for row in step.read_newest().values())


@pytest.mark.parametrize("top_k", [3, 9])
def test_another_number_of_neighbours_takes_effect(tmp_path: Path, top_k: int) -> None:
    step = Step(tmp_path, "neighbours")
    log = step.make_log()
    first = step.run(log)
    assert step.run(log, top_k=top_k) == first
    assert step.run(log, top_k=top_k) == 0


def test_another_scale_of_ages_gives_what_a_first_run_with_it_gives(tmp_path: Path) -> None:
    scale = "child_age_stages:\n  a: [0, 3]\n  b: [3, 9]\n  c: [9, 30]\n  d: [30, 60]\n  e: [60, 200]\n"
    step, fresh = Step(tmp_path / "step", "interests"), Step(tmp_path / "fresh", "interests")
    log = step.make_log()
    step.run(log)
    before = step.read_newest()
    for one in (step, fresh):  # as many stages as before: only the digest shows that they are others
        one.store.file.write_text(one.store.file.read_text() + scale)
        one.store = config.load(one.store.file)
        one.run(log)
    assert step.read_newest() == fresh.read_newest() != before
    assert step.run(log) == 0
    step.store.file.write_text(step.store.file.read_text().replace("  e: [60, 200]\n", ""))
    step.store = config.load(step.store.file)  # four stages: the stored tags of five count as missing
    assert step.run(log) > 0
    assert {row["child_age_mix"] is None for row in step.read_newest().values()} == {True}
