"""The cost of an upgrade comes from the rates of the run log and the bytes of the tables."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import run_log
from feature_repo.run_log import RunRecord
from producers.embeddings.estimate import EmbeddingEstimate
from producers.upgrade import cost
from tests.feature_repo.features import world

NOW = datetime(2026, 9, 1, tzinfo=UTC)


def record(step: str, rows: int, seconds: float, ending: str = run_log.DONE, **contents: int) -> RunRecord:
    name = cost.ROW_COUNTS.get(step, "rows")
    ended = NOW + timedelta(seconds=seconds)
    return RunRecord(1, step, None, {}, {name: rows, **contents}, {}, NOW, ended, ending, None, "host", 1)


def line(row_seconds: float, start_seconds: float = 0.0) -> cost.StepRate:
    return cost.StepRate(pytest.approx(start_seconds), pytest.approx(row_seconds))


def test_a_rate_is_the_median_of_the_latest_runs_that_have_written_rows() -> None:
    runs = [record("tags", 10, 20), record("tags", 0, 99), record("tags", 10, 900, run_log.KILLED)]
    runs += [record("tags", 10, seconds) for seconds in (10, 30, 40, 50)] + [record("tags", 10, 1e6)] * 20
    assert cost.read_rates(runs) == {"tags": line(3.0)}
    assert cost.read_rates([record("catalogue", 10, 20), record("codes", 0, 5)]) == {}


@given(
    start=st.floats(0, 60),
    row=st.floats(1e-6, 0.1),
    small=st.lists(st.integers(1, 1_000), min_size=1, max_size=9),
    large=st.lists(st.integers(100_000, 1_000_000), min_size=1, max_size=9),
)
def test_the_start_of_a_step_is_known_from_small_runs_and_the_cost_of_a_row_from_large_ones(
    start: float, row: float, small: list[int], large: list[int]
) -> None:
    runs = [record("codes", rows, start + row * rows) for rows in small + large]
    rate = cost.read_rates(runs)["codes"]
    for rows in (*small, *large):
        # The seconds of a small run have rows in them, at most 1% of those of a large run.
        assert rate.estimate(rows) == pytest.approx(start + row * rows, rel=0.02, abs=2 * row * 1_000 + 1e-5)


def test_the_cost_of_a_row_and_that_of_an_encoded_content_are_told_apart() -> None:
    encoding = record("embeddings", 1000, 60, pictures=800, titles=1000)
    reusing = record("backfill", 1000, 6, reused=2000)
    alone = cost.read_rates([encoding])
    assert alone == {"encoding": line(60 / 1800)}
    assert cost._estimate_encoding(alone, 500, 1000) == pytest.approx(1000 * 60 / 1800)
    assert cost._estimate_encoding(alone, 500, 0) is None
    both = cost.read_rates([encoding, reusing])
    assert both == {"embeddings": line(0.006), "encoding": line(54 / 1800)}
    assert cost._estimate_encoding(both, 500, 0) == pytest.approx(3.0)
    assert cost._estimate_encoding(cost.read_rates([reusing]), 500, 7) is None


def test_what_an_upgrade_takes_besides_its_steps_is_known_from_earlier_ones() -> None:
    def at(step: str, first: float, seconds: float, **counts: int) -> RunRecord:
        started = NOW + timedelta(seconds=first)
        ended = started + timedelta(seconds=seconds)
        return RunRecord(1, step, None, {}, counts, {}, started, ended, run_log.DONE, None, "host", 1)

    before = at("codes", 0, 50, added=5)
    first = [at("upgrade", 100, 30), at("backfill", 102, 20, rows=5), at("codes", 123, 4, added=5)]
    catch_up = [at("upgrade", 200, 9), at("backfill", 201, 2)]  # without rows
    assert cost.read_overhead([*catch_up, *first, before]) == pytest.approx(6)
    assert cost.read_overhead([*catch_up, before]) is None


def test_a_step_writes_what_the_candidate_lacks_of_the_rows_in_production(tmp_path: Path) -> None:
    settings = world.deployment(tmp_path / "shop")
    world.write(world.small_shop(), settings)
    world.write_rows(settings, "product_tags", [NOW] * 4, product_id=["p1"] * 4, encoder_version=["next@2"] * 4)
    embeddings = EmbeddingEstimate("next@2", rows=40, existing=0, images=0, titles=40)
    with run_log.record_run(settings, "codes", now=NOW) as run:
        run.add_counts(added=1_000_000)
    found = {one.step: one for one in cost.estimate(settings, embeddings, world.ENCODER, "next@2")}
    assert {step: one.rows for step, one in found.items()} == {
        "embeddings": 40,
        "tags": 34 - 4,
        "codes": 33,
        "interests": 8,
    }  # no view is applied, so nothing is written online
    assert found["tags"].seconds is None
    assert "unknown time" in str(found["tags"])
    assert found["codes"].seconds == pytest.approx(0, abs=0.1)
    size = sum(file.stat().st_size for file in settings.table("product_codes").glob("*.parquet"))
    assert found["codes"].bytes == size
