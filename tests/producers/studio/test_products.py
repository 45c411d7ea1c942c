"""Products are read from tables that stay open for a while: changes, deletions and vacuums reach them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.offline import delta
from producers import maintenance
from producers.studio import products
from producers.studio.products import REFRESH_SECONDS, ProductReader
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """Products a and b, tagged red."""
    store = open_deployment(tmp_path)
    ingest(store, {"product_id": "a"}, {"product_id": "b"})
    tag(store, "red", created=NOW)
    return store


@pytest.fixture
def reader(store: Settings, clock: Clock) -> ProductReader:
    return ProductReader(store, 0.9, clock)


def tag(store: Settings, colour: str, created: datetime) -> None:
    versions = delta.read(store.table("product_catalogue"), ["product_id", "event_timestamp"]).to_pylist()
    tags = {"further_tags": [f"colour={colour}"], "further_tag_probabilities": [0.95], "created_timestamp": created}
    rows = [version | tags | {"encoder_version": "small@1"} for version in versions]
    delta.append(store.table("product_tags"), pa.Table.from_pylist(rows, schema.PRODUCT_TAGS))


def read_colours(reader: ProductReader, product_id: str) -> list[str]:
    facts = reader.find(product_id).facts
    assert facts is not None
    return [fact.value for fact in facts.sure]


def test_changes_are_seen_once_the_tables_are_opened_anew(store: Settings, reader: ProductReader, clock: Clock) -> None:
    assert (reader.find("a").title, read_colours(reader, "a")) == ("女童连衣裙", ["red"])
    ingest(store, {"product_id": "b", "title": "帽子", "updated_at": "2026-01-03T00:00:00Z"}, {"product_id": "c"})
    tag(store, "blue", created=NOW + timedelta(days=1))
    clock.seconds = REFRESH_SECONDS - 1
    assert (reader.find("b").title, read_colours(reader, "b")) == ("女童连衣裙", ["red"])
    with pytest.raises(NotFoundError, match="no product 'c'"):
        reader.find("c")
    clock.seconds = REFRESH_SECONDS
    assert (reader.find("b").title, read_colours(reader, "b")) == ("帽子", ["blue"])
    assert read_colours(reader, "a") == ["blue"]
    assert reader.find("c").product_id == "c"


@pytest.mark.parametrize("asked_before", ["a", "b"])
def test_a_forgotten_product_is_gone_once_the_tables_are_opened_anew(
    store: Settings, reader: ProductReader, clock: Clock, asked_before: str
) -> None:
    reader.find(asked_before)
    maintenance.forget(store, products=["a"], users=[])
    clock.seconds = REFRESH_SECONDS
    with pytest.raises(NotFoundError, match="no product 'a'"):
        reader.find("a")
    assert read_colours(reader, "b") == ["red"]


def test_tables_whose_files_a_vacuum_has_removed_are_opened_anew_at_once(
    store: Settings, reader: ProductReader
) -> None:
    reader.find("b")
    maintenance.forget(store, products=["b"], users=[])
    list(maintenance.vacuum(store, now=NOW + timedelta(days=9_999), grace=timedelta(0)))
    assert read_colours(reader, "a") == ["red"]


def test_as_many_products_are_kept_as_may_be(reader: ProductReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "MAX_KEPT", 1)
    kept = reader.find("a")
    assert reader.find("a") is kept
    reader.find("b")
    assert reader.find("a") is not kept


def test_a_store_without_tags_says_what_to_do(tmp_path: Path) -> None:
    store = open_deployment(tmp_path)
    ingest(store, {"product_id": "a"})
    with pytest.raises(NotFoundError, match="run `produce tags`"):
        ProductReader(store, 0.9).find("a")
