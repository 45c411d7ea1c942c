"""`DeltaOfflineStore` through Feast itself: definitions applied, tables on disk, the public calls."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RequestSource
from feast.data_format import DeltaFormat, ParquetFormat
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String

from feature_repo.errors import VitrineError
from feature_repo.offline import delta

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")
SETTINGS = """
project: shop
provider: local
registry: registry.db
offline_store:
  type: feature_repo.stores.offline.DeltaOfflineStore
  path: tables
online_store:
  type: sqlite
  path: online.db
entity_key_serialization_version: 3
"""

product = Entity(name="product", join_keys=["product_id"])
user = Entity(name="user", join_keys=["user_id"])


def source(name: str, **options: Any) -> FileSource:
    settings = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp", **options}
    return FileSource(name=name, path=name, file_format=DeltaFormat(), **settings)


looks = FeatureView(
    name="looks",
    entities=[product],
    ttl=10 * DAY,
    schema=[
        Field(name="vector", dtype=Array(Float32)),
        Field(name="colour", dtype=String),
    ],
    source=source("looks"),
)
habits = FeatureView(
    name="habits",
    entities=[user],
    ttl=timedelta(0),
    schema=[Field(name="clicks", dtype=Int64)],
    source=source("habits", created_timestamp_column=None, field_mapping={"n_clicks": "clicks", "elsewhere": "x"}),
)
season = FeatureView(
    name="season",
    entities=[],
    ttl=timedelta(0),
    schema=[Field(name="sale", dtype=Float64)],
    source=source("season", created_timestamp_column=None),
)


@on_demand_feature_view(
    sources=[habits, RequestSource(name="request", schema=[Field(name="position", dtype=Int64)])],
    schema=[Field(name="clicks_by_position", dtype=Float64)],
)
def attention(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"clicks_by_position": inputs["clicks"] / (inputs["position"] + 1)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Products a and b and user u; a changes on day 2 and is corrected (same event time, created later)."""
    folder = tmp_path_factory.mktemp("repo")
    (folder / "feature_store.yaml").write_text(SETTINGS)
    root = folder / "tables"
    for row in [
        ("a", [1.0, 0.0], "red", 0, 0),
        ("b", [0.0, 1.0], "blue", 0, 0),
        ("a", [0.5, 0.5], "pink", 2, 3),
        ("a", [0.6, 0.8], "rose", 2, 4),
        ("a", [9.0, 9.0], "mauve", 2, 2),
        ("c", None, None, 0, 0),
    ]:
        delta.append(root / "looks", looks_rows([row]))
    delta.append(
        root / "habits",
        pa.table(
            {
                "user_id": pa.array([1, 1], pa.int64()),
                "n_clicks": pa.array([3, 5], pa.int64()),
                "event_timestamp": pa.array([START, START + DAY], STAMP),
            }
        ),
    )
    delta.append(
        root / "season",
        pa.table({"sale": [0.1, 0.2], "event_timestamp": pa.array([START, START + 5 * DAY], STAMP)}),
    )
    store = FeatureStore(str(folder))
    everything = FeatureService(name="everything", features=[looks, habits, season])
    store.apply([product, user, looks, habits, season, attention, everything])
    return store


def looks_rows(rows: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        {
            "product_id": [row[0] for row in rows],
            "vector": pa.array([row[1] for row in rows], pa.list_(pa.float32())),
            "colour": pa.array([row[2] for row in rows], pa.string()),
            "event_timestamp": pa.array([START + row[3] * DAY for row in rows], STAMP),
            "created_timestamp": pa.array([START + row[4] * DAY for row in rows], STAMP),
        }
    )


def impressions(rows: list[tuple[str | None, int | None, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "product_id": [row[0] for row in rows],
            "user_id": pd.array([row[1] for row in rows], dtype="Int64"),
            "event_timestamp": pd.to_datetime([START + row[2] * DAY for row in rows], utc=True),
            "label": range(len(rows)),
        }
    )


ROWS = [("a", 1, 3.0), ("b", 1, 3.0), ("a", 1, 3.0), ("z", 2, 3.0), ("a", 1, -1.0), (None, None, 6.0), ("a", 1, 1.5)]


def test_keeps_every_row_in_order_with_repeated_and_unknown_keys(store: FeatureStore) -> None:
    job = store.get_historical_features(impressions(ROWS), store.get_feature_service("everything"))
    answer = job.to_arrow()
    assert answer["label"].to_pylist() == list(range(len(ROWS)))
    assert answer["colour"].to_pylist() == ["rose", "blue", "rose", None, None, None, "red"]
    assert answer["clicks"].to_pylist() == [5, 5, 5, None, None, None, 5]
    assert answer["sale"].to_pylist() == [0.1, 0.1, 0.1, 0.1, None, 0.2, 0.1]
    assert [vector and len(vector) for vector in answer["vector"].to_pylist()] == [2, 2, 2, None, None, None, 2]
    assert job.to_df()["label"].tolist() == list(range(len(ROWS)))


def test_of_equal_event_timestamps_the_later_created_wins_in_any_write_order(store: FeatureStore) -> None:
    answer = store.get_historical_features(impressions([("a", 1, 2.0)]), ["looks:colour"]).to_arrow()
    assert answer["colour"].to_pylist() == ["rose"]


def test_filter_by_created_timestamp_uses_only_versions_created_by_then(store: FeatureStore) -> None:
    rows = impressions([("a", 1, 1.9), ("a", 1, 2.5), ("a", 1, 3.5), ("a", 1, 4.0)])
    answer = store.get_historical_features(rows, ["looks:colour"], filter_by_created_timestamp=True).to_arrow()
    assert answer["colour"].to_pylist() == ["red", "mauve", "pink", "rose"]


def test_a_version_is_valid_for_its_ttl_and_no_longer(store: FeatureStore) -> None:
    rows = impressions([("b", 1, 10.0), ("b", 1, 10.0 + 1e-6)])
    answer = store.get_historical_features(rows, ["looks:colour"]).to_arrow()
    assert answer["colour"].to_pylist() == ["blue", None]


def test_normalised_form_holds_each_version_once(store: FeatureStore) -> None:
    job = store.get_historical_features(impressions(ROWS), store.get_feature_service("everything"))
    normalised = job.to_normalised()
    matched = normalised.views["looks"]
    colours = matched.versions["colour"].to_pylist()
    assert sorted(colours) == ["blue", "red", "rose"]
    expected = ["rose", "blue", "rose", None, None, None, "red"]
    assert [None if row < 0 else colours[row] for row in matched.row_index] == expected
    since = {"red": START, "blue": START, "rose": START + 2 * DAY}
    assert matched.event_timestamp.to_pylist() == [since[colour] for colour in colours]
    assert normalised.rows["label"].to_pylist() == list(range(len(ROWS)))
    written_out = job.to_arrow()
    assert normalised.to_table() == written_out
    encoded = normalised.to_table(dictionary=True)
    assert pa.types.is_dictionary(encoded["vector"].type)
    assert encoded["vector"].to_pylist() == written_out["vector"].to_pylist()
    pieces = list(job.to_batches(rows=2))
    assert [len(piece) for piece in pieces] == [2, 2, 2, 1]
    assert pa.concat_tables(pieces) == written_out


def test_full_feature_names_carry_the_view(store: FeatureStore) -> None:
    job = store.get_historical_features(impressions(ROWS), ["looks:colour", "habits:clicks"], full_feature_names=True)
    assert job.to_arrow().column_names[-2:] == ["looks__colour", "habits__clicks"]


def test_joins_one_view_under_two_names_by_two_columns(store: FeatureStore) -> None:
    seen = looks[["colour"]].with_name("seen").with_join_key_map({"product_id": "seen_id"})
    clicked = looks[["colour"]].with_name("clicked").with_join_key_map({"product_id": "clicked_id"})
    store.apply(FeatureService(name="pairs", features=[seen, clicked]))
    rows = pd.DataFrame({"seen_id": ["a"], "clicked_id": ["b"], "event_timestamp": [START]})
    answer = store.get_historical_features(rows, store.get_feature_service("pairs"), full_feature_names=True)
    assert answer.to_arrow().select(["seen__colour", "clicked__colour"]).to_pylist() == [
        {"seen__colour": "red", "clicked__colour": "blue"}
    ]


def test_on_demand_features_are_computed_from_the_joined_features(store: FeatureStore) -> None:
    rows = impressions([("a", 1, 3.0), ("a", 2, 3.0)]).assign(position=[1, 1])
    job = store.get_historical_features(rows, ["habits:clicks", "attention:clicks_by_position"])
    answer = job.to_df()
    assert answer["clicks_by_position"].tolist()[0] == 2.5
    assert pd.isna(answer["clicks_by_position"].tolist()[1])
    assert next(job.to_batches(rows=1))["clicks_by_position"].to_pylist() == [2.5]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai", "America/Los_Angeles"])
def test_the_time_zone_of_entity_rows_does_not_matter(store: FeatureStore, zone: str | None) -> None:
    rows = impressions(ROWS)
    rows["event_timestamp"] = rows["event_timestamp"].dt.tz_convert(zone)
    answer = store.get_historical_features(rows, ["looks:colour"]).to_arrow()
    assert answer["colour"].to_pylist() == ["rose", "blue", "rose", None, None, None, "red"]
    assert answer["event_timestamp"].cast(STAMP).to_pylist()[0] == START + 3 * DAY


def test_entity_rows_may_be_arrow_with_another_timestamp_name(store: FeatureStore) -> None:
    rows = pa.Table.from_pandas(impressions(ROWS), preserve_index=False).rename_columns(
        ["product_id", "user_id", "shown_at", "label"]
    )
    answer = store.get_historical_features(pa.concat_tables([rows.slice(0, 3), rows.slice(3)]), ["looks:colour"])
    assert answer.to_arrow()["colour"].to_pylist() == ["rose", "blue", "rose", None, None, None, "red"]


def test_without_entity_rows_there_are_no_result_rows(store: FeatureStore) -> None:
    answer = store.get_historical_features(impressions([]), store.get_feature_service("everything")).to_arrow()
    assert answer.num_rows == 0
    assert "vector" in answer.column_names


@pytest.mark.parametrize(
    ("rows", "features", "message"),
    [
        ("SELECT 1", ["looks:colour"], "entity_df is a SQL string"),
        (pd.DataFrame({"product_id": ["a"]}), ["looks:colour"], "no column `event_timestamp`"),
        (pd.DataFrame({"event_timestamp": [START]}), ["looks:colour"], "no column `product_id`"),
        (
            pd.DataFrame({"product_id": ["a"], "colour": ["x"], "event_timestamp": [START]}),
            ["looks:colour"],
            "`colour` comes from the entity rows and from feature view `looks`",
        ),
        (
            pd.DataFrame({"product_id": ["a"], "event_timestamp": ["soon"]}),
            ["looks:colour"],
            "has values that are not times",
        ),
        (pd.DataFrame({"product_id": [1], "event_timestamp": [START]}), ["looks:colour"], "`looks`, join key product"),
    ],
)
def test_invalid_entity_rows_raise_one_line(store: FeatureStore, rows: Any, features: list[str], message: str) -> None:
    with pytest.raises(VitrineError, match=message) as refusal:
        store.get_historical_features(rows, features).to_arrow()
    assert "\n" not in str(refusal.value)


def test_without_entity_rows_each_event_between_the_dates_is_a_row(store: FeatureStore) -> None:
    answer = store.get_historical_features(
        features=["looks:colour"], start_date=START + DAY, end_date=START + 2 * DAY
    ).to_arrow()
    assert answer.to_pylist() == [{"event_timestamp": START + 2 * DAY, "product_id": "a", "colour": "rose"}]


def test_materializes_through_the_stock_engine(store: FeatureStore) -> None:
    store.materialize(START - DAY, START + 3 * DAY)
    answer = store.get_online_features(
        ["looks:colour", "looks:vector", "habits:clicks", "season:sale"],
        [{"product_id": "a", "user_id": 1}, {"product_id": "b", "user_id": 2}],
    ).to_dict()
    assert answer["colour"] == ["rose", "blue"]
    assert answer["vector"][1] == [0.0, 1.0]
    assert answer["clicks"] == [5, None]
    assert answer["sale"] == [0.1, 0.1]


def test_reads_the_newest_row_of_each_key_in_the_window(store: FeatureStore) -> None:
    job = store._get_provider().offline_store.pull_latest_from_table_or_query(
        config=store.config,
        data_source=looks.batch_source,
        join_key_columns=["product_id"],
        feature_name_columns=["colour"],
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        start_date=START,
        end_date=START + 2 * DAY,
    )
    answer = job.to_arrow()
    assert dict(zip(answer["product_id"].to_pylist(), answer["colour"].to_pylist(), strict=True)) == {
        "a": "rose",
        "b": "blue",
        "c": None,
    }
    assert answer["colour"].num_chunks == 1  # Feast's own writer reads the first chunk only


@pytest.mark.parametrize("name", ["saved", "saved.parquet"])
@pytest.mark.parametrize("file_format", [DeltaFormat(), ParquetFormat()])
def test_a_training_set_is_saved_once_and_read_again(store: FeatureStore, name: str, file_format: Any) -> None:
    job = store.get_historical_features(impressions(ROWS[:4]), ["looks:colour", "looks:vector"])
    path = str(store.repo_path / f"{type(file_format).__name__}-{name}")
    storage = SavedDatasetFileStorage(path=path, file_format=file_format)
    store.create_saved_dataset(job, "again", storage, allow_overwrite=True)
    saved = store.get_saved_dataset("again").to_df().sort_values("product_id")
    assert saved["colour"].tolist() == ["rose", "rose", "blue", None]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)


def test_joins_rows_larger_than_memory_into_a_folder(store: FeatureStore, tmp_path: Path) -> None:
    rows = pa.Table.from_pandas(impressions(ROWS), preserve_index=False)
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=2)
    service = store.get_feature_service("everything")
    job = store.get_historical_features(pa.dataset.dataset(tmp_path / "rows.parquet"), service)
    made = job.to_folder(str(tmp_path / "set"))
    in_memory = store.get_historical_features(rows, service).to_arrow()
    assert pa.concat_tables(made.to_batches(rows=3)).to_pydict() == in_memory.to_pydict()
    assert job.to_arrow().to_pydict() == in_memory.to_pydict()
    by_then = job.created_before(START + timedelta(days=3, hours=1)).to_folder(tmp_path / "earlier")
    assert pa.concat_tables(by_then.to_batches())["colour"].to_pylist()[0] == "pink"


def test_invalid_timestamps_and_batches_of_zero_rows_raise_an_error(store: FeatureStore) -> None:
    job = store.get_historical_features(impressions(ROWS), store.get_feature_service("everything"))
    for moment in ("2026-11-29", START.date(), None, pd.NaT):
        with pytest.raises(
            VitrineError, match=r"created_before: .* is not a time; expected a datetime with its time zone"
        ):
            job.created_before(moment)
    for rows in (0, -1):
        with pytest.raises(VitrineError, match=f"to_batches: rows is {rows}; expected at least 1"):
            job.to_batches(rows=rows)
    moment = START + timedelta(days=3, hours=1)
    naive = job.created_before(moment.replace(tzinfo=None)).to_arrow()
    assert naive.to_pydict() == job.created_before(moment).to_arrow().to_pydict()
