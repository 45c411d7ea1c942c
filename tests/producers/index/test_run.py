"""`produce index` builds an index from the tables and follows them."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from feature_repo import schema
from feature_repo.arrow.take import matrix_to_lists
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError
from feature_repo.index import nearest, update
from feature_repo.index.filters import ProductFilter
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.rows import WORDS, find_folder
from feature_repo.offline import delta, retention
from producers import maintenance
from producers.index import word_model
from producers.index.run import index_products
from tests.producers.catalogue.shop import open_deployment

VERSION = "encoder@1"
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


def write_catalogue(store: Settings, day: int, products: dict[str, dict]) -> None:
    at = START + timedelta(days=day)
    rows = [
        {"product_id": name, "event_timestamp": at, "created_timestamp": at, "title": name, **values}
        for name, values in products.items()
    ]
    delta.append(store.table(schema.CATALOGUE_TABLE), pa.Table.from_pylist(rows, schema.CATALOGUE))


def write_vectors(store: Settings, day: int, vectors: dict[str, list[float]], version: str = VERSION) -> None:
    at = START + timedelta(days=day)
    matrix = matrix_to_lists(np.array(list(vectors.values()), np.float32))
    columns = dict.fromkeys(schema.PRODUCT_EMBEDDING.names) | {
        "product_id": list(vectors),
        **dict.fromkeys(("image_vector", "text_vector"), matrix),
        "encoder_version": [version] * len(vectors),
        **dict.fromkeys(("event_timestamp", "created_timestamp"), [at] * len(vectors)),
    }
    arrays = [
        pa.nulls(len(vectors), one.type) if columns[one.name] is None else pa.array(columns[one.name], one.type)
        for one in schema.PRODUCT_EMBEDDING
    ]
    delta.append(store.table(schema.EMBEDDING_TABLE), pa.table(arrays, schema=schema.PRODUCT_EMBEDDING))


def write_active(store: Settings, day: int, product: str, active: bool) -> None:
    at = START + timedelta(days=day)
    row = {"product_id": product, "active": active, "event_timestamp": at, "created_timestamp": at}
    delta.append(store.table(schema.ACTIVE_TABLE), pa.Table.from_pylist([row], schema.PRODUCT_ACTIVE))


def open_newest(store: Settings) -> ProductIndex:
    return open_index(find_folder(store, VERSION), VERSION)


def read_state(store: Settings) -> dict[str, tuple[str, float | None, list[float]]]:
    """Return title, price and image vector of each product that can be found."""
    index = open_newest(store)
    ids = index.list_ids(index.select(ProductFilter()))
    rows = index.find_rows(ids)
    taken, vectors = index.take(rows).to_pylist(), index.take_vectors("image_vector", rows).tolist()
    return {row["product_id"]: (row["title"], row["price"], vector) for row, vector in zip(taken, vectors, strict=True)}


@pytest.mark.parametrize("flat_rows", [50_000, 1])
def test_follows_new_changed_gone_and_returned_products(
    store: Settings, monkeypatch: pytest.MonkeyPatch, flat_rows: int
) -> None:
    monkeypatch.setattr(update, "FLAT_ROWS", flat_rows)
    monkeypatch.setattr(nearest, "EXACT_ROWS", 0)
    write_catalogue(store, 0, {"a": {"price": 1.0}, "b": {"price": 2.0}, "unseen": {"price": 9.0}})
    write_vectors(store, 0, {"a": [1.0, 0.0], "b": [0.0, 1.0]})
    assert index_products(store, encoder_version=None).changed == 2
    assert index_products(store, encoder_version=None).how == "unchanged"

    write_catalogue(store, 1, {"a": {"price": 5.0, "title": "new"}, "c": {"price": 3.0}})
    write_vectors(store, 1, {"c": [0.6, 0.8], "unseen": [0.8, 0.6]})  # of `unseen` the catalogue was read before
    write_active(store, 1, "b", False)
    summary = index_products(store, encoder_version=None)
    assert (summary.how, summary.changed, summary.products, summary.gone) == (
        "built" if flat_rows > 1 else "extended",
        3,
        3,
        1,
    )
    assert read_state(store) == {
        "a": ("new", 5.0, pytest.approx([1, 0])),
        "c": ("c", 3.0, pytest.approx([0.6, 0.8])),
        "unseen": ("unseen", 9.0, pytest.approx([0.8, 0.6])),
    }

    write_active(store, 2, "b", True)
    write_catalogue(store, -1, {"a": {"price": 7.0, "title": "late, but older"}})
    index_products(store, encoder_version=None)
    state = read_state(store)
    assert state["a"][:2] == ("new", 5.0)
    assert state["b"][:2] == ("b", 2.0)
    assert index_products(store, encoder_version=None, rebuild=True).how == "built"
    assert read_state(store) == state


def test_rows_that_a_compaction_moved_are_not_changes(store: Settings) -> None:
    for day, product in enumerate("abc"):
        write_catalogue(store, day, {product: {"brand": None if product == "a" else "Acme"}})
        write_vectors(store, day, {product: [0.6, 0.8]})
    index_products(store, encoder_version=None)
    before = read_state(store)
    for table in (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE):
        retention.compact(store.table(table))
    write_catalogue(store, 9, {"b": {"price": 4.0, "brand": "Acme"}})
    assert index_products(store, encoder_version=None).changed == 1
    assert read_state(store) == before | {"b": ("b", 4.0, before["b"][2])}


def test_an_index_of_tables_that_were_removed_is_built_anew(store: Settings) -> None:
    for title in ("old", "new"):
        for table in (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE):
            shutil.rmtree(store.table(table), ignore_errors=True)
        write_catalogue(store, 0, {"a": {"title": title}, title: {}})
        write_vectors(store, 0, {"a": [1.0, 0.0], title: [0.0, 1.0]})
        assert index_products(store, encoder_version=None).how == "built"
        assert index_products(store, encoder_version=None).how == "unchanged"
        assert {name: state[0] for name, state in read_state(store).items()} == {"a": title, title: title}


def test_an_index_is_of_one_encoder_version(store: Settings) -> None:
    write_catalogue(store, 0, {"a": {}, "b": {}})
    write_vectors(store, 0, {"a": [1.0, 0.0], "b": [0.0, 1.0]})
    write_vectors(store, 1, {"b": [0.6, 0.8]}, version="other@2")
    assert index_products(store, encoder_version=VERSION).products == 2
    assert index_products(store, encoder_version="other@2").products == 1


def test_says_what_is_missing(store: Settings) -> None:
    with pytest.raises(NotFoundError):
        index_products(store, encoder_version=None)
    write_catalogue(store, 0, {"a": {}})
    write_vectors(store, 0, {"a": [1.0, 0.0]})
    with pytest.raises(InvalidInputError, match="expected one of image_vector"):
        index_products(store, encoder_version=None, vectors=["title_vector"])
    assert not (store.offline / "index").exists()


def test_a_damaged_index_is_replaced_on_request(store: Settings) -> None:
    write_catalogue(store, 0, {"a": {}})
    write_vectors(store, 0, {"a": [1.0, 0.0]})
    index_products(store, encoder_version=None)
    next(find_folder(store, VERSION).glob("main-*/rows.arrow")).write_bytes(b"")
    with pytest.raises(CorruptDataError, match="--rebuild"):
        index_products(store, encoder_version=None)
    assert index_products(store, encoder_version=None, rebuild=True).products == 1


def test_forgetting_a_product_reaches_the_index(store: Settings) -> None:
    write_catalogue(store, 0, {"a": {}, "b": {}})
    write_vectors(store, 0, {"a": [1.0, 0.0], "b": [0.0, 1.0]})
    index_products(store, encoder_version=None)
    assert maintenance.forget(store, products=["a"], users=[], dry_run=True).offline["index"] == 1
    assert maintenance.forget(store, products=["a"], users=[]).offline["index"] == 1
    assert list(read_state(store)) == ["b"]


def test_learns_the_words_of_pictures_and_is_not_fooled_by_a_title(
    store: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_model, "MIN_PRODUCTS", 20)
    monkeypatch.setattr(word_model, "MIN_TITLES", 5)
    rng = np.random.default_rng(0)
    catalogue, vectors = {}, {}
    for number in range(60):
        has_stripes = number % 3 == 0
        pixels = rng.integers(90, 110, (96, 96))
        if has_stripes:
            pixels[:, (np.arange(96) // 4 + number) % 2 == 0] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        is_stuffed = number == 1
        title = "stripes" if has_stripes or is_stuffed else "plain"
        catalogue[f"p{number}"] = {"title": title, "image": str(tmp_path / f"{number}.png")}
        vectors[f"p{number}"] = [0.6, 0.8] if number % 2 else [0.8, 0.6]  # says nothing of the stripes
    write_catalogue(store, 0, catalogue)
    write_vectors(store, 0, vectors)
    assert index_products(store, encoder_version=None).words == 1, "a word of most titles says nothing"
    index = open_newest(store)
    with np.load(index.folder / str(index.manifest.word_model)) as model:
        column = model["words"].tolist().index("stripe")
    scores = index.take_lines(WORDS, [column], index.find_rows([f"p{number}" for number in range(60)]))[0]
    has_stripes = np.arange(60) % 3 == 0
    assert scores[has_stripes].min() > scores[~has_stripes].max(), "the stuffed title is among the latter"
