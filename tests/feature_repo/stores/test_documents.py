"""Feast's `retrieve_online_documents_v2`: keys with their own rows, by stock Feast and in rank order by ours."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureStore

from feature_repo.config import load
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index.rows import INDEX_ROWS, find_folder
from feature_repo.index.update import IndexedProducts, build_index
from feature_repo.offline import production
from feature_repo.offline.production import State
from tests.feature_repo.stores import world

LOOKS = {"a": 1, "b": 2, "c": 3, "d": 4}
"""Product -> the hour that its colour names."""
VECTORS = np.array([[0.6, 0.8], [1, 0], [0, 1], [-1, 0]], np.float32)
NEAREST = ["b", "a", "c"]


def write_index(store: FeatureStore, version: str, vectors: np.ndarray) -> None:
    rows = [{"product_id": product, "embedding_us": 1, "catalogue_us": 1} for product in LOOKS]
    products = IndexedProducts(pa.Table.from_pylist(rows, INDEX_ROWS), {"image_vector": vectors}, {})
    build_index(find_folder(load(Path(store.config.repo_path) / "feature_store.yaml"), version), version, products)


def record_production(store: FeatureStore, version: str) -> None:
    offline = load(Path(store.config.repo_path) / "feature_store.yaml").offline
    before = production.read_current(offline)
    production.record_step(
        offline, before, state=State.CUT_OVER, production_version=version, created=datetime(2026, 3, 1, tzinfo=UTC)
    )


@pytest.fixture
def indexed(store: FeatureStore) -> FeatureStore:
    folder = Path(store.config.repo_path)
    world.append_looks(folder, [(product, 1, hour) for product, hour in LOOKS.items()])
    store.materialize(world.START, world.at(5), feature_views=["looks"])
    write_index(store, "encoder@1", VECTORS)
    return store


def retrieve(feast: FeatureStore, **options: object) -> dict:
    given = {"features": ["looks:colour"], "query": [2.0, 0.2], "top_k": 3, "distance_metric": "cosine"} | options
    return feast.retrieve_online_documents_v2(**given).to_dict()


def test_gives_each_key_its_own_row_the_nearest_first(indexed: FeatureStore) -> None:
    found = retrieve(indexed)
    assert found["product_id"] == NEAREST
    assert found["colour"] == [f"colour {LOOKS[product]}" for product in NEAREST]
    query = np.array([2.0, 0.2]) / np.linalg.norm([2.0, 0.2])
    assert found["distance"] == pytest.approx(
        [1 - VECTORS[list(LOOKS).index(one)] @ query for one in NEAREST], abs=1e-6
    )
    by_length = retrieve(indexed, distance_metric="L2")
    assert by_length["product_id"] == NEAREST
    assert by_length["distance"] == pytest.approx(
        [np.linalg.norm(VECTORS[list(LOOKS).index(one)] - query) for one in NEAREST], abs=1e-6
    )


def test_stock_feast_gives_each_key_its_own_row_in_the_order_of_the_keys(indexed: FeatureStore) -> None:
    found = retrieve(FeatureStore(repo_path=str(indexed.config.repo_path)))
    assert dict(zip(found["product_id"], found["colour"], strict=True)) == {
        one: f"colour {LOOKS[one]}" for one in NEAREST
    }
    assert found["product_id"] == sorted(NEAREST)


@pytest.mark.parametrize(
    "options", [{"query": [0.0, 0.0]}, {"query": [1.0, 0.0, 0.0]}, {"distance_metric": "hamming"}, {"top_k": 0}]
)
def test_refuses_what_it_cannot_search(indexed: FeatureStore, options: dict) -> None:
    with pytest.raises(InvalidInputError):
        retrieve(indexed, **options)


def test_says_how_to_get_an_index(store: FeatureStore) -> None:
    with pytest.raises(NotFoundError, match="produce index"):
        retrieve(store)


def test_searches_the_vectors_of_the_encoder_in_production_whatever_was_indexed_last(indexed: FeatureStore) -> None:
    record_production(indexed, "encoder@1")
    write_index(indexed, "encoder@2", -VECTORS)
    assert retrieve(indexed)["product_id"] == NEAREST
    record_production(indexed, "encoder@2")
    assert retrieve(indexed)["product_id"] == [*"dca"]
    record_production(indexed, "encoder@3")
    with pytest.raises(NotFoundError, match="encoder@3"):
        retrieve(indexed)


def test_refuses_to_choose_between_indexes_if_no_encoder_is_in_production(indexed: FeatureStore) -> None:
    write_index(indexed, "encoder@2", -VECTORS)
    with pytest.raises(InvalidInputError, match="2 encoder versions"):
        retrieve(indexed)
