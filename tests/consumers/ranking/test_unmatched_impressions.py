"""Impressions whose product is in no view are kept, counted and quarantined."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumers.ranking import joined_log
from consumers.ranking.plan import TrainingPlan
from consumers.ranking.result import LiftResult
from consumers.ranking.run import join_and_export, measure_lift
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo import definitions
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, quarantine
from feature_repo.schema import TIMESTAMP
from feature_repo.stores.feature_store import open_feature_store
from tests.deployments import configure
from tests.producers.tags import world

ROWS = 600
UNKNOWN, TOO_SOON = ("i3", "i300", "i599"), ("i0", "i450")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Thirty products, listed on the first of January."""
    folder = tmp_path_factory.mktemp("shop")
    settings = configure(folder)
    products = world.catalogue(15)
    delta.append(settings.table("product_catalogue"), products)
    delta.append(settings.table("product_embedding"), world.embeddings(products))
    open_feature_store(settings).apply([getattr(definitions, name) for name in definitions.__all__])
    return settings


def log(file: Path, unknown: tuple[str, ...], too_soon: tuple[str, ...]) -> Path:
    generator = np.random.default_rng(0)
    ids = [f"i{row}" for row in range(ROWS)]
    shown = [world.product_id(number) for number in generator.integers(0, 30, ROWS)]
    times = [world.START + timedelta(days=1, hours=row) for row in range(ROWS)]
    table = pa.table(
        {
            "impression_id": ids,
            "user_id": [f"u{user}" for user in generator.integers(0, 20, ROWS)],
            "product_id": ["ghost" if name in unknown else shown[row] for row, name in enumerate(ids)],
            "event_timestamp": pa.array(
                [world.START - timedelta(days=9) if name in too_soon else times[row] for row, name in enumerate(ids)],
                TIMESTAMP,
            ),
            "clicked": pa.array(generator.integers(0, 2, ROWS), pa.int8()),
        }
    )
    pq.write_table(table, file)
    return file


def measure_file(store: Settings, file: Path) -> LiftResult:
    return measure_lift(
        store,
        file,
        service="ranking_without_tags",
        truth=None,
        test_days=None,
        plan=TrainingPlan(seeds=1, permutations=1, ablation_rows=1000),
        replicates=20,
        now=world.NOW,
        progress=lambda *_: None,
    )


def test_an_impression_without_features_is_kept_counted_and_quarantined(store: Settings, tmp_path: Path) -> None:
    result = measure_file(store, log(tmp_path / "log.parquet", UNKNOWN, TOO_SOON))
    assert result.rows["train"] + result.rows["test"] == ROWS
    assert (result.rows["unmatched"], result.rows["refused"]) == (5, 0)
    named = {
        row["row_id"]: row["value"]
        for row in quarantine.read(store).to_pylist()
        if row["reason"] == joined_log.UNMATCHED
    }
    assert named.keys() == {*UNKNOWN, *TOO_SOON}
    assert {named[row] for row in UNKNOWN} == {"ghost"}
    assert result.find("all features").rows == result.rows["test"]


def test_an_export_joins_only_rows_that_were_created_before_a_time(store: Settings, tmp_path: Path) -> None:
    file = log(tmp_path / "log.parquet", (), ())

    def export(created_before: datetime | None) -> dict[str, int]:
        return join_and_export(
            store,
            file,
            tmp_path / "set",
            service="ranking_without_tags",
            test_days=None,
            formats=["parquet"],
            now=world.NOW,
            progress=lambda _: None,
            created_before=created_before,
        )

    assert "features.parquet" in export(None)
    with pytest.raises(VitrineError, match="none of its products has a feature row"):
        export(world.START + timedelta(hours=1))


def test_the_log_of_another_shop_is_rejected_in_one_line(store: Settings, tmp_path: Path) -> None:
    everything = tuple(f"i{row}" for row in range(ROWS))
    with pytest.raises(
        VitrineError, match=r"log.parquet: none of its products has a feature row at the time"
    ) as caught:
        measure_file(store, log(tmp_path / "log.parquet", everything, ()))
    assert "\n" not in str(caught.value)


def test_an_impression_without_a_user_is_a_user_of_its_own() -> None:
    def codes(*users: str | None) -> list[int]:
        return RankingTrainingSet(pa.table({"user_id": pa.array(users, pa.string())}), {}).user.tolist()

    assert codes("b", None, "a", None, "b", "a") == [0, 1, 2, 3, 0, 2]
    assert codes("b", None, "a") == [0, 1, 2], "later rows do not change earlier codes"
    assert codes("b", "a", "b") == [0, 1, 0]
    assert codes(None, None) == [0, 1]
