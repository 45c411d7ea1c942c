"""`consume search --muge` writes ten products for each query, as the search returns them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from consumers.cli import app
from consumers.search.selection import search_products
from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.index.filters import ProductFilter
from feature_repo.index.rows import INDEX_ROWS, find_folder
from feature_repo.index.update import IndexedProducts, build_index
from tests.consumers.search.conftest import TITLES, SearchWorld

QUERIES = [{"query_id": 7, "query_text": "红色 连衣裙"}, {"text_id": 8, "text": "蓝色"}]


def index_pictures(world: SearchWorld, count: int) -> None:
    """Index pictures without titles whose ids are integers; their vectors are those of texts."""
    encoder = world.encoder
    vectors = encoder.encode_texts([TITLES[number % 4] + " 积木" * (number // 4) for number in range(count)])
    rows = [{"product_id": str(1000 + n), "embedding_us": 1, "catalogue_us": 1} for n in range(count)]
    missing = np.full((count, 1), np.nan, np.float32)  # as `produce index` has it if no product has a title
    products = IndexedProducts(
        pa.Table.from_pylist(rows, INDEX_ROWS), {"image_vector": vectors, "text_vector": missing}, {}
    )
    build_index(find_folder(world.settings, encoder.encoder_version), encoder.encoder_version, products)


def run(world: SearchWorld, folder: Path, *queries: object, more: tuple[str, ...] = ()) -> Result:
    lines = [query if isinstance(query, str) else json.dumps(query, ensure_ascii=False) for query in queries]
    (folder / "queries.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    options = ["--queries", str(folder / "queries.jsonl"), "--muge", str(folder / "out.jsonl"), *more]
    return CliRunner().invoke(
        app, ["search", *options, "--towers", str(world.towers), "--store", str(world.settings.file)]
    )


def test_each_query_has_its_ten_best_products_in_its_own_form(world: SearchWorld, tmp_path: Path) -> None:
    index_pictures(world, 14)
    result = run(world, tmp_path, *QUERIES)
    assert result.exit_code == 0, result.output
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["query_id"], first["query_text"], second["text_id"], second["text"]) == (7, "红色 连衣裙", 8, "蓝色")
    for ids, text in ((first["item_ids"], "红色 连衣裙"), (second["image_ids"], "蓝色")):
        found = search_products(world.index, world.encoder, text, where=ProductFilter(), top_k=10)
        assert ids == [int(one) for one in found.products["product_id"].to_pylist()]
        assert len(set(ids)) == 10


def test_what_cannot_be_submitted_is_refused_and_nothing_is_written(world: SearchWorld, tmp_path: Path) -> None:
    result = run(world, tmp_path, *QUERIES)
    assert isinstance(result.exception, InvalidInputError)  # the world has six products
    assert "6 products are found; a submission needs 10" in str(result.exception)
    index_pictures(world, 14)
    result = run(world, tmp_path, QUERIES[0], {"query_id": 8}, "{")
    assert "line 2: query_text is missing or blank; line 3: not JSON" in str(result.exception)
    result = run(world, tmp_path, QUERIES[0], {"query_id": 8, "query_text": "红" * 2000})
    assert "line 2: the sentence has 2,000 characters" in str(result.exception)
    assert "no query" in str(run(world, tmp_path).exception)
    assert not (tmp_path / "out.jsonl").exists()
    for more in (("a sentence",), ("--save", "name"), ("--output", str(tmp_path / "x.csv"))):
        assert isinstance(run(world, tmp_path, *QUERIES, more=more).exception, UsageError)


def test_products_of_another_shop_are_no_images_of_muge(world: SearchWorld, tmp_path: Path) -> None:
    world.write_index([f"红色 {number}" for number in range(12)])
    assert np.isfinite(world.encoder.encode_texts(["红色"])).all()
    with pytest.raises(InvalidInputError, match="is no image of MUGE"):
        raise run(world, tmp_path, *QUERIES).exception or AssertionError("not refused")
