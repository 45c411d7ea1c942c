"""A training set, a request and a materialization hold the encoder version in production, whatever was written last."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from feast import FeatureStore

from consumers.online import OnlineReader, Status
from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import ConflictError
from feature_repo.offline import delta, production
from feature_repo.offline.production import State
from feature_repo.stores import encoder_views
from feature_repo.stores.feast_compat import get_online_store
from feature_repo.stores.feature_store import open_feature_store
from feature_repo.stores.online import packed
from tests.consumers.serving.running import materialized
from tests.feature_repo.features import world
from tests.feature_repo.features.world import LISTED, RANKED
from tests.producers.upgrade import shop

SHOP = world.small_shop()
OLD, NEW = world.ENCODER, "next@2"
PRODUCTS = SHOP.products
SERVICE = "ranking_with_affinity"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The small shop with rows of OLD; those of NEW were created a day later. OLD is in production, and online."""
    settings = world.deployment(tmp_path_factory.mktemp("made") / "shop")
    world.write(SHOP, settings)
    production.record_first_version(settings.offline, "ignored, because there are vectors", LISTED)
    write_again(settings, NEW)
    with materialized(settings, RANKED):
        return settings


@pytest.fixture
def settings(made: Settings, tmp_path: Path) -> Settings:
    return shop.copy(made, tmp_path / "shop")


def write_again(settings: Settings, version: str) -> None:
    """Write every row of OLD once more, a day later and of another version."""
    for table in schema.ENCODER_TABLES:
        if delta.exists(settings.table(table)):
            rows = delta.read(settings.table(table), where=pc.field("encoder_version") == OLD)
            for name, value in (("encoder_version", version), ("created_timestamp", RANKED + timedelta(days=1))):
                index = rows.schema.get_field_index(name)
                rows = rows.set_column(
                    index, name, pa.repeat(pa.scalar(value, rows.schema.field(index).type), len(rows))
                )
            delta.append(settings.table(table), rows)


@pytest.fixture
def reader(settings: Settings) -> Iterator[OnlineReader]:
    with OnlineReader(f"lmdb://{settings.file.parent / 'online'}", project=settings.project) as reader:
        yield reader


def put_into_production(settings: Settings, version: str, at: datetime = RANKED) -> None:
    current = production.read_current(settings.offline)
    production.record_step(settings.offline, current, state=State.CUT_OVER, production_version=version, created=at)


def versions_of(table: pa.Table) -> set[str]:
    names = [name for name in table.column_names if name.endswith("encoder_version")]
    assert names
    return {value for name in names for value in table[name].drop_null().to_pylist()}


def entity_rows() -> pd.DataFrame:
    return pd.DataFrame({"product_id": PRODUCTS, "user_id": "u3", "event_timestamp": RANKED})


def test_a_training_set_has_the_version_in_production_unless_another_one_is_asked_for(
    settings: Settings, reader: OnlineReader
) -> None:
    store = open_feature_store(settings)
    job = store.get_historical_features(entity_rows(), store.get_feature_service("ranking_without_history"), True)
    assert versions_of(job.to_arrow()) == {OLD}
    assert versions_of(job.with_encoder_version(NEW).to_arrow()) == {NEW}
    put_into_production(settings, NEW)
    job = store.get_historical_features(entity_rows(), store.get_feature_service("ranking_without_history"), True)
    assert versions_of(job.to_arrow()) == {NEW}
    assert versions_of(job.created_before(RANKED).to_arrow()) == {OLD}


def test_a_pull_has_the_rows_of_the_version_in_production(settings: Settings, reader: OnlineReader) -> None:
    store = open_feature_store(settings)
    source = store.get_feature_view("product_codes").batch_source
    for pull in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        job = getattr(store._get_provider().offline_store, pull)(
            store.config, source, ["product_id"], ["encoder_version"], "event_timestamp", "created_timestamp"
        )
        assert versions_of(job.to_arrow()) == {OLD}


def test_a_materialization_writes_the_version_in_production(reader: OnlineReader) -> None:
    for view in ("product_embedding", "product_codes", "product_tags"):
        values = reader.fetch(view, PRODUCTS).values["encoder_version"]
        assert set(values) <= {OLD, None}


def fetch_versions(reader: OnlineReader, store: FeatureStore) -> set[str]:
    """The versions that the reader and Feast's own call return."""
    batch = reader.fetch(SERVICE, {"product_id": PRODUCTS, "user_id": "u3"}, full_feature_names=True)
    found = {value for name in batch.values if name.endswith("encoder_version") for value in batch.values[name]}
    rows = [{"product_id": product, "user_id": "u3"} for product in PRODUCTS]
    answer = store.get_online_features(store.get_feature_service("ranking_without_history"), rows, True).to_dict()
    found |= {value for name, values in answer.items() if name.endswith("encoder_version") for value in values}
    return found - {None}


def test_readers_see_a_candidate_only_after_the_switch_and_then_in_all_views(
    settings: Settings, reader: OnlineReader
) -> None:
    store = open_feature_store(settings)
    with pytest.raises(ConflictError, match=f"no rows of {NEW} in"):
        encoder_views.switch_version(store, NEW, OLD)
    encoder_views.write_version(store, NEW, OLD, RANKED)
    with OnlineReader.from_table(reader._table, refresh=0.0) as fresh:
        assert fetch_versions(fresh, open_feature_store(settings)) == {OLD}
        encoder_views.switch_version(store, NEW, OLD)
        assert fetch_versions(fresh, open_feature_store(settings)) == {NEW}
        encoder_views.switch_version(store, OLD, OLD)
        assert fetch_versions(fresh, open_feature_store(settings)) == {OLD}
        encoder_views.switch_version(store, NEW, OLD)
        dropped = encoder_views.drop_other_versions(store)
        assert "product_embedding" in dropped
        assert "product_catalogue" not in dropped
        assert fetch_versions(fresh, open_feature_store(settings)) == {NEW}


def test_a_feature_store_that_stays_open_takes_up_a_switch(
    settings: Settings, reader: OnlineReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = open_feature_store(settings), open_feature_store(settings)
    with OnlineReader.from_table(reader._table, refresh=0.0) as fresh:
        assert fetch_versions(fresh, store) == {OLD}
        encoder_views.write_version(writer, NEW, OLD, RANKED)
        encoder_views.switch_version(writer, NEW, OLD)
        assert fetch_versions(fresh, store) == {NEW, OLD}  # the reader's and Feast's, which is a minute behind at most
        monkeypatch.setattr(packed, "REFRESH_SECONDS", 0.0)
        assert fetch_versions(fresh, store) == {NEW}


def test_rows_that_come_after_a_switch_are_written_to_the_version_in_production(
    settings: Settings, reader: OnlineReader
) -> None:
    store = open_feature_store(settings)
    encoder_views.write_version(store, NEW, OLD, RANKED)
    encoder_views.switch_version(store, NEW, OLD)
    put_into_production(settings, NEW)
    later = RANKED + timedelta(hours=1)
    world.write_rows(
        settings, "product_embedding", [later], product_id=["p1"], has_image=[False], encoder_version=[OLD]
    )
    world.write_rows(
        settings, "product_embedding", [later], product_id=["p2"], has_image=[False], encoder_version=[NEW]
    )
    store.materialize_incremental(later)
    with OnlineReader.from_table(reader._table, refresh=0.0) as fresh:
        batch = fresh.fetch("product_embedding", ["p1", "p2"])
        assert batch.values["encoder_version"].tolist() == [NEW, NEW]
        assert batch.values["has_image"].tolist() == [True, False]


def test_feast_computes_affinity_from_one_version_if_the_switch_comes_between_two_views(
    settings: Settings, reader: OnlineReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, writer = open_feature_store(settings), open_feature_store(settings)
    encoder_views.write_version(writer, NEW, OLD, RANKED)
    online = get_online_store(store).online_table(store.config)
    switched_after: list[str] = []

    def switch(view: str, *_: object) -> None:
        if view in schema.ENCODER_TABLES and not switched_after:
            switched_after.append(view)
            encoder_views.switch_version(writer, NEW, OLD)

    monkeypatch.setattr(packed, "REFRESH_SECONDS", 0.0)
    rows = {"product_id": PRODUCTS, "user_id": ["u3"] * len(PRODUCTS)}
    rows |= {name: [None] * len(PRODUCTS) for name in ("history_vectors", "history_codes", "ranked_at")}
    service = store.get_feature_service(SERVICE)
    for answer in (
        lambda: store.get_online_features(service, rows, True),
        lambda: asyncio.run(store.get_online_features_async(service, rows, True)),
    ):
        encoder_views.switch_version(writer, OLD, OLD)
        switched_after.clear()
        online.on_read = switch
        values = answer().to_dict()
        online.on_read = None
        assert switched_after
        names = [name for name in values if name.endswith("encoder_version")]
        assert len(names) > 1
        assert len({value for name in names for value in values[name]} - {None}) == 1


def test_a_deleted_entity_has_no_row_of_any_version(settings: Settings, reader: OnlineReader) -> None:
    store = open_feature_store(settings)
    encoder_views.write_version(store, NEW, OLD, RANKED)
    view = store.get_feature_view("product_embedding")
    with OnlineReader.from_table(reader._table, refresh=0.0) as fresh:
        status = fresh.fetch("product_embedding", PRODUCTS).status
        ids = [product for product, one in zip(PRODUCTS, status, strict=True) if one == Status.PRESENT][:2]
        get_online_store(store).delete_entities(store.config, view, {"product_id": ids[:1]})
        for version in (OLD, NEW):
            encoder_views.switch_version(store, version, OLD)
            status = fresh.fetch("product_embedding", ids).status
            assert status.tolist() == [Status.ABSENT, Status.PRESENT]


def test_every_table_with_an_encoder_version_is_pinned() -> None:
    tables = {
        schema.EMBEDDING_TABLE: schema.PRODUCT_EMBEDDING,
        schema.TAGS_TABLE: schema.PRODUCT_TAGS,
        schema.CODES_TABLE: schema.PRODUCT_CODES,
        schema.NEIGHBOURS_TABLE: schema.PRODUCT_NEIGHBOURS,
        schema.INTEREST_TABLE: schema.USER_INTEREST,
    }
    dated = {schema.ENCODER_VERSION, schema.EVENT_TIMESTAMP}  # others do not say what holds of a product or user
    schemas = [value for value in vars(schema).values() if isinstance(value, pa.Schema)]
    with_version = {id(value) for value in schemas if dated <= set(value.names)}
    with_version.remove(id(schema.PRODUCT_GROUP))  # group ids stay over an upgrade, whatever found the pairs
    with_version.remove(id(schema.PRODUCT_CAPTION))  # a text by any checkpoint: nothing is compared with it
    assert {id(value) for value in tables.values()} == with_version
    assert set(tables) == set(schema.ENCODER_TABLES)


def test_of_two_processes_that_start_from_one_state_one_is_refused(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert production.record_first_version(tmp_path, "a@1", now) == "a@1"
    assert production.record_first_version(tmp_path, "b@1", now) == "a@1"
    current = production.read_current(tmp_path)
    production.record_step(tmp_path, current, state=State.STAGED, candidate_version="b@1", created=now)
    with pytest.raises(ConflictError, match="another process has moved the upgrade on"):
        production.record_step(tmp_path, current, state=State.STAGED, candidate_version="c@1", created=now)
    assert [one.candidate_version for one in production.read_history(tmp_path)] == [None, "b@1"]
