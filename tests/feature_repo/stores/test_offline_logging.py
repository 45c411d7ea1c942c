"""`DeltaOfflineStore`: logged features, request data and teardown, as Feast's own test suites require them."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest
from feast import FeatureService, FeatureStore
from feast.errors import RequestDataNotFoundInEntityDfException
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

from tests.feature_repo.stores import test_offline as shop
from tests.feature_repo.stores.test_offline import DAY, STAMP, START

store = shop.store


def logged(products: list[str], day: int) -> pa.Table:
    """What a server logs: keys, features with their times and statuses, and when it was asked."""
    rows = len(products)
    return pa.table(
        {
            "product_id": products,
            "looks__colour": pa.array([None if one == "z" else "red" for one in products], pa.string()),
            "looks__colour__timestamp": pa.array([START] * rows, STAMP),
            "looks__colour__status": pa.array([1 if one == "z" else 2 for one in products], pa.int32()),
            "__log_timestamp": pa.array([START + day * DAY] * rows, STAMP),
            "__log_date": pa.array([(START + day * DAY).date()] * rows, pa.date32()),
            "__request_id": [f"r{day}-{number}" for number in range(rows)],
        }
    )


@pytest.mark.parametrize("partition_by", [None, ["__log_date"]], ids=["one folder", "a folder a day"])
def test_logged_features_of_a_service_accumulate_from_tables_and_from_files(
    store: FeatureStore, tmp_path: Path, partition_by: list[str] | None
) -> None:
    destination = FileLoggingDestination(path=str(tmp_path / "log"), partition_by=partition_by)
    service = FeatureService(
        name="logged", features=[shop.looks[["colour"]]], logging_config=LoggingConfig(destination=destination)
    )
    store.apply(service)
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    pa.parquet.write_table(logged(["b"], 1), waiting / "part.parquet")
    store.write_logged_features(logged(["a", "z"], 0), service)
    store.write_logged_features(waiting, service)
    store.write_logged_features(logged(["a"], 1), service)
    partitioning = pyarrow.dataset.partitioning(field_names=partition_by) if partition_by else None
    found = pyarrow.dataset.dataset(tmp_path / "log", partitioning=partitioning).to_table().sort_by("__request_id")
    assert found["__request_id"].to_pylist() == ["r0-0", "r0-1", "r1-0", "r1-0"]
    assert sorted(found["product_id"].to_pylist()) == ["a", "a", "b", "z"]
    assert found["looks__colour"].to_pylist().count(None) == 1


def test_rows_without_the_request_data_raise_an_error_that_names_it(store: FeatureStore) -> None:
    rows = shop.impressions([("a", 1, 3.0)])
    with pytest.raises(RequestDataNotFoundInEntityDfException, match="position"):
        store.get_historical_features(rows, ["attention:clicks_by_position"]).to_df()


def test_teardown_keeps_the_offline_tables(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(shop.SETTINGS)
    opened = FeatureStore(str(tmp_path))
    rows = shop.looks_rows([("a", [1.0, 0.0], "red", 0, 0)])
    shop.delta.append(tmp_path / "tables" / "looks", rows)
    opened.apply([shop.product, shop.looks])
    opened.teardown()
    assert shop.delta.read(tmp_path / "tables" / "looks").equals(rows)
    opened = FeatureStore(str(tmp_path))
    opened.apply([shop.product, shop.looks])
    asked = pd.DataFrame({"product_id": ["a"], "event_timestamp": [START + DAY]})
    assert opened.get_historical_features(asked, ["looks:colour"]).to_df()["colour"].tolist() == ["red"]
