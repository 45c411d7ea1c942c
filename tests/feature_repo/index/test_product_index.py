"""An index answers as a brute-force search does, whatever was added, replaced, hidden or forgotten."""

from pathlib import Path

import numpy as np
import pytest

from feature_repo.errors import CorruptDataError, EncoderMismatchError, InvalidInputError, NotFoundError
from feature_repo.index import nearest, update
from feature_repo.index.filters import ProductFilter
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.update import IndexedProducts, append_products, build_index, forget_products, needs_merge
from tests.feature_repo.index.products import WIDTH, make_products, matches

VERSION = "encoder@1"
FILTERS = (
    ProductFilter(),
    ProductFilter(categories=("服装",), price_max=50),
    ProductFilter(brands=("Acme",), price_min=20, price_max=60, in_stock=True),
    ProductFilter(tags={"child_age": "1-3y"}, categories=("玩具>积木", "服装>裤子")),
    ProductFilter(price_min=1000),
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index" / "encoder@1"


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use graphs for a few hundred products, as for millions."""
    monkeypatch.setattr(update, "FLAT_ROWS", 50)
    monkeypatch.setattr(nearest, "EXACT_ROWS", 20)
    monkeypatch.setattr(update, "MAX_APPENDED", 100)


def brute_force(
    state: dict[str, tuple[dict, np.ndarray]], where: ProductFilter, query: np.ndarray, k: int
) -> list[str]:
    scored = [
        (-float(vector @ query), product_id)
        for product_id, (row, vector) in state.items()
        if matches(row, where) and not np.isnan(vector[0])
    ]
    return [product_id for _, product_id in sorted(scored)[:k]]


def to_state(products: IndexedProducts) -> dict[str, tuple[dict, np.ndarray]]:
    rows, vectors = products.rows.to_pylist(), products.vectors["image_vector"]
    return {row["product_id"]: (row, vector) for row, vector in zip(rows, vectors, strict=True)}


def check(index: ProductIndex, state: dict[str, tuple[dict, np.ndarray]], rng: np.random.Generator) -> None:
    for where in FILTERS:
        query = rng.normal(size=WIDTH).astype(np.float32)
        expected = brute_force(state, where, query, 10)
        rows, scores = index.search("image_vector", query, 10, index.select(where), exact=True)
        assert sorted(index.take(rows)["product_id"].to_pylist()) == sorted(expected)
        assert (np.diff(scores) <= 0).all()
        near = index.take(index.search("image_vector", query, 10, index.select(where))[0])["product_id"].to_pylist()
        assert len(near) == len(expected)
        assert len({*near} & {*expected}) >= 0.8 * len(expected)
        assert {*near} <= {product_id for product_id, (row, _) in state.items() if matches(row, where)}
        assert sorted(index.list_ids(index.select(where))) == sorted(
            product_id for product_id, (row, _) in state.items() if matches(row, where)
        )


def test_follows_additions_replacements_and_departures(
    rng: np.random.Generator, folder: Path, graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = make_products(rng, [f"p{i}" for i in range(300)])
    build_index(folder, VERSION, products)
    state = to_state(products)
    for number in range(4):
        index = open_index(folder, VERSION)
        assert not needs_merge(index, 30)
        assert needs_merge(index, 300)
        check(index, state, rng)
        changed = make_products(rng, [f"p{i}" for i in rng.choice(400, 25, replace=False)])
        gone = [f"p{i}" for i in rng.choice(300, 20, replace=False)]
        append_products(index, changed, gone=gone)
        every = state | to_state(changed)
        check(open_index(folder, VERSION), {k: v for k, v in every.items() if k not in gone}, rng)
        check(index, state, rng)  # what was opened before stays
        append_products(open_index(folder, VERSION), None, gone=[])  # all are back
        state = every
        assert open_index(folder).manifest.generation == 1 + 2 * (number + 1)
    build_index(folder, VERSION, update.gather_products(open_index(folder)))
    check(open_index(folder), state, rng)


@pytest.mark.parametrize("appended", [0, 30])
def test_many_queries_at_once_find_what_each_finds_alone(
    rng: np.random.Generator, folder: Path, graphs: None, appended: int
) -> None:
    build_index(folder, VERSION, make_products(rng, [f"p{i}" for i in range(300)]))
    if appended:
        added = make_products(rng, [f"p{i}" for i in range(290, 290 + appended)])
        append_products(open_index(folder), added, gone=["p3", "p295"])
    index = open_index(folder)
    queries = rng.normal(size=(20, WIDTH)).astype(np.float32)
    for vector in index.vectors:
        rows, scores = index.search_batch(vector, queries, 7)
        alone = [index.search(vector, query, 7) for query in queries]
        assert rows.tolist() == [one.tolist() for one, _ in alone]
        np.testing.assert_allclose(scores, [values for _, values in alone], rtol=1e-5)


def test_many_queries_of_few_products_give_no_row_where_there_is_none(rng: np.random.Generator, folder: Path) -> None:
    build_index(folder, VERSION, make_products(rng, ["a", "b"]))
    rows, scores = open_index(folder).search_batch("text_vector", np.ones((3, WIDTH), np.float32), 4)
    assert (np.sort(rows) == [-1, -1, 0, 1]).all()
    assert (scores[:, 2:] == -np.inf).all()


def test_up_to_some_products_every_search_is_exact_and_there_is_one_segment(
    rng: np.random.Generator, folder: Path
) -> None:
    build_index(folder, VERSION, make_products(rng, ["a", "b", "c"]))
    index = open_index(folder)
    assert needs_merge(index, 1)
    assert [one.graph for one in index.segments[0].vectors.values()] == [None, None]


def test_keeps_the_measured_recall_and_uses_it(rng: np.random.Generator, folder: Path, graphs: None) -> None:
    build_index(folder, VERSION, make_products(rng, [f"p{i}" for i in range(2000)]))
    measured = open_index(folder).manifest.recall["text_vector"]["shares"]
    assert [one["share"] for one in measured] == [1.0, 0.1, 0.01]
    assert all(one["recall"] >= 0.95 for one in measured)


def test_gives_fewer_results_than_asked_for_and_never_others(rng: np.random.Generator, folder: Path) -> None:
    build_index(folder, VERSION, make_products(rng, ["a", "b", "c"]))
    index = open_index(folder)
    assert len(index.search("text_vector", np.ones(WIDTH, np.float32), 1000)[0]) == 3
    assert len(index.search("text_vector", np.ones(WIDTH, np.float32), 5, index.select(FILTERS[-1]))[0]) == 0


def test_refuses_what_does_not_fit(rng: np.random.Generator, folder: Path) -> None:
    with pytest.raises(NotFoundError, match="produce index"):
        open_index(folder)
    build_index(folder, VERSION, make_products(rng, ["a", "b"]))
    with pytest.raises(EncoderMismatchError, match="encoder@2"):
        open_index(folder, "encoder@2")
    index = open_index(folder)
    with pytest.raises(InvalidInputError, match="expected a vector of its encoder"):
        index.search("text_vector", np.ones(WIDTH + 1, np.float32), 5)
    with pytest.raises(InvalidInputError, match="top_k"):
        index.search("text_vector", np.ones(WIDTH, np.float32), 0)
    with pytest.raises(NotFoundError, match="image_vector, text_vector"):
        index.search("fused_vector", np.ones(WIDTH, np.float32), 5)


@pytest.mark.parametrize("name", ["rows.arrow", "image_vector.npy", "keywords/data.csc.index.npy"])
def test_an_index_that_is_cut_short_is_one_clear_line(rng: np.random.Generator, folder: Path, name: str) -> None:
    build_index(folder, VERSION, make_products(rng, [f"p{i}" for i in range(20)]))
    file = next(folder.glob(f"main-*/{name}"))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CorruptDataError, match=r"bytes, expected .* produce index --rebuild"):
        open_index(folder)


def test_forgets_a_product_that_was_replaced_everywhere(
    rng: np.random.Generator, tmp_path: Path, folder: Path, graphs: None
) -> None:
    build_index(folder, VERSION, make_products(rng, [f"p{i}" for i in range(200)]))
    append_products(open_index(folder), make_products(rng, ["p7", "new"]), gone=["p1"])
    assert forget_products(tmp_path, ["p7", "unknown"], dry_run=True) == 2
    assert forget_products(tmp_path, ["p7", "unknown"]) == 2
    index = open_index(folder)
    assert index.find_rows(["p7"])[0] < 0
    assert len(index.all) == 199
    assert update.list_gone(index) == ["p1"]
    assert not any("p7" in one.rows["product_id"].to_pylist() for one in index.segments)
    assert {file.name.split("-")[0] for file in folder.iterdir()} == {"main", "flags", "manifest.json"}


def test_forgetting_the_last_product_removes_the_index(rng: np.random.Generator, tmp_path: Path, folder: Path) -> None:
    build_index(folder, VERSION, make_products(rng, ["a"]))
    forget_products(tmp_path, ["a"])
    assert not folder.exists()


@pytest.mark.parametrize("values", [{"price_min": -1}, {"price_min": 5, "price_max": 4}, {"tags": {"colour": "red"}}])
def test_a_filter_that_cannot_be_meant_is_refused(values: dict) -> None:
    with pytest.raises(InvalidInputError):
        ProductFilter(**values)
