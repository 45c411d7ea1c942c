"""Tables of `DeltaOfflineStore` that Feast writes, or that do not exist yet; Parquet beside Delta."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, FeatureView, Field, FileSource
from feast.data_format import ParquetFormat
from feast.types import Float32

from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from tests.feature_repo.stores.test_offline import (
    DAY,
    ROWS,
    SETTINGS,
    STAMP,
    START,
    impressions,
    looks,
    looks_rows,
    product,
    source,
)


def test_writes_columns_in_any_order_and_rejects_unknown_ones(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(SETTINGS)
    delta.append(tmp_path / "tables" / "looks", looks_rows([("a", [1.0, 0.0], "red", 0, 0)]))
    store = FeatureStore(str(tmp_path))
    store.apply([product, looks])
    frame = looks_rows([("a", [0.0, 1.0], "green", 1, 1)]).to_pandas()
    store.write_to_offline_store("looks", frame[frame.columns[::-1]])
    rows = pd.DataFrame({"product_id": ["a"], "event_timestamp": [START + DAY]})
    assert store.get_historical_features(rows, ["looks:colour"]).to_arrow()["colour"].to_pylist() == ["green"]
    with pytest.raises(ValueError, match="extra_unexpected_columns"):
        store.write_to_offline_store("looks", frame.assign(weight=1))


def test_without_entity_rows_numbers_keep_the_type_of_their_table(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(SETTINGS)
    rates = FeatureView(
        name="rates",
        entities=[product],
        ttl=DAY,
        schema=[Field(name="wide", dtype=Float32), Field(name="narrow", dtype=Float32)],
        source=source("rates"),
    )
    stamps = {name: pa.array([START], STAMP) for name in ("event_timestamp", "created_timestamp")}
    first = pa.table({"product_id": ["a"], "wide": [0.1], "narrow": pa.array([0.1], pa.float32()), **stamps})
    delta.append(tmp_path / "tables" / "rates", first)
    store = FeatureStore(str(tmp_path))
    store.apply([product, rates])
    frame = first.to_pandas().assign(wide=[0.2], narrow=[0.2], event_timestamp=[START + timedelta(hours=1)])
    store.write_to_offline_store("rates", frame)
    result = store.get_historical_features(
        None, ["rates:wide", "rates:narrow"], start_date=START, end_date=START + DAY
    ).to_df()
    assert result["wide"].tolist() == [0.1, 0.2]
    assert result["narrow"].dtype == "float32"
    assert result["narrow"].tolist() == np.array([0.1, 0.2], np.float32).tolist()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_reads_and_appends_to_parquet(tmp_path: Path, kind: str) -> None:
    (tmp_path / "feature_store.yaml").write_text(SETTINGS)
    path = tmp_path / "elsewhere" / ("looks.parquet" if kind == "file" else "looks")
    file = path if kind == "file" else path / "one.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(looks_rows([("a", [1.0, 0.0], "red", 0, 0)]), file)
    view = FeatureView(
        name="looks",
        entities=[product],
        ttl=10 * DAY,
        source=FileSource(path=str(path), file_format=ParquetFormat(), timestamp_field="event_timestamp"),
    )
    store = FeatureStore(str(tmp_path))
    store.apply([product, view])
    assert {feature.name for feature in store.get_feature_view("looks").features} >= {"vector", "colour"}
    store.write_to_offline_store("looks", looks_rows([("a", [0.0, 1.0], "green", 1, 1)]).to_pandas())
    rows = pd.DataFrame({"product_id": ["a", "a"], "event_timestamp": [START, START + DAY]})
    assert store.get_historical_features(rows, ["looks:colour"]).to_arrow()["colour"].to_pylist() == ["red", "green"]


def test_definitions_apply_before_their_tables_exist(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text(SETTINGS)
    store = FeatureStore(str(tmp_path))
    store.apply([product, FeatureView(name="looks", entities=[product], schema=looks.schema, source=source("looks"))])
    with pytest.raises(VitrineError, match="no table `looks`"):
        store.get_historical_features(impressions(ROWS), ["looks:colour"])
