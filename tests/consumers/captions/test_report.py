"""The report on captions, with captions and true attributes that are known."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sacrebleu.metrics import BLEU

from consumers.captions import report
from feature_repo import vocabulary
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError, VitrineError
from feature_repo.offline import delta
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


@pytest.fixture
def captioned_store(store: Settings, tmp_path: Path) -> Settings:
    """A store with three captions, and the true attributes of their products."""
    ingest(
        store,
        {"product_id": "a", "title": "新款红色裙子1-3岁", "image": None},
        {"product_id": "b", "title": "蓝色裙子", "image": None},
        {"product_id": "c", "title": "蓝色红色帽子", "image": None},
    )
    catalogue = delta.read(store.table("product_catalogue")).sort_by("product_id")
    lines = ["红色裙子1-3岁", "红色裙子", "帽子"]
    columns = {"caption": lines, "captioner_version": ["small@1"] * 3, "created_timestamp": [NOW] * 3}
    rows = catalogue.select(["product_id", "event_timestamp"])
    for name, values in columns.items():
        rows = rows.append_column(name, pa.array(values, pa.timestamp("us", "UTC") if name[0:2] == "cr" else None))
    delta.append(store.table("product_caption"), rows)
    truth = tmp_path / "truth"
    truth.mkdir()
    pq.write_table(
        pa.table(
            {
                "product_id": ["a", "b", "c"],
                "colour": ["red", "blue", "blue"],
                "category": ["dress", "dress", "hat"],
                "child_age": ["1-3y", "1-3y", "0-6m"],
            }
        ),
        truth / "products.parquet",
    )
    words = {
        "colour": {"red": "红色", "blue": "蓝色"},
        "category": {"dress": "裙子", "hat": "帽子"},
        "child_age": {"1-3y": "1-3岁", "0-6m": "新生儿"},
    }
    rows = [
        {"attribute": attribute, "value": value, "word": word}
        for attribute, values in words.items()
        for value, word in values.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), truth / vocabulary.FILE)
    return store


def test_the_report_counts_how_often_lines_name_a_value_and_the_true_one(
    captioned_store: Settings, tmp_path: Path
) -> None:
    result = report.evaluate_captions(captioned_store, held_out=None, truth=tmp_path / "truth", seed=0)
    shares = {(row.attribute, row.lines): (row.names, row.true) for row in result.truthfulness}
    assert shares["colour", "captions"] == pytest.approx((2 / 3, 1 / 2))
    assert shares["colour", "titles"] == pytest.approx((1, 2 / 3))  # c names two colours, and one is not true
    assert shares["category", "captions"] == pytest.approx((1, 1))
    assert shares["child_age", "captions"] == pytest.approx((1 / 3, 1))
    assert all(row.ci95[0] <= row.true <= row.ci95[1] for row in result.truthfulness)
    titles = ["新款红色裙子1-3岁", "蓝色裙子", "蓝色红色帽子"]
    own = BLEU(tokenize="zh").corpus_score(["红色裙子1-3岁", "红色裙子", "帽子"], [titles]).score
    assert result.bleu4 == pytest.approx(own)
    assert json.loads(result.to_json())["products"] == 3


def test_only_the_held_out_products_are_evaluated(captioned_store: Settings, tmp_path: Path) -> None:
    pq.write_table(pa.table({"product_id": ["c"]}), tmp_path / "held_out.parquet")
    result = report.evaluate_captions(
        captioned_store, held_out=tmp_path / "held_out.parquet", truth=tmp_path / "truth", seed=0
    )
    assert result.products == 1
    colour = next(row for row in result.truthfulness if (row.attribute, row.lines) == ("colour", "captions"))
    assert colour.names == 0
    assert np.isnan(colour.true)
    shares = {(row["attribute"], row["lines"]): row["true"] for row in json.loads(result.to_json())["truthfulness"]}
    assert shares["colour", "captions"] is None


def test_a_product_without_a_caption_counts_among_the_products_with_its_reason(
    captioned_store: Settings, tmp_path: Path
) -> None:
    rows = delta.read(captioned_store.table("product_caption")).sort_by("product_id").slice(2)
    missing = {"caption": pa.nulls(1, pa.string()), "missing_reason": pa.array(["nothing is sure"])}
    for name, values in missing.items():
        index = rows.schema.get_field_index(name)
        rows = rows.append_column(name, values) if index < 0 else rows.set_column(index, name, values)
    later = pa.array([NOW.replace(day=2)], pa.timestamp("us", "UTC"))
    delta.append(
        captioned_store.table("product_caption"),
        rows.set_column(rows.schema.get_field_index("created_timestamp"), "created_timestamp", later),
    )
    result = report.evaluate_captions(captioned_store, held_out=None, truth=tmp_path / "truth", seed=0)
    assert (result.products, result.captioned, result.missing) == (3, 2, {"nothing is sure": 1})
    category = next(row for row in result.truthfulness if (row.attribute, row.lines) == ("category", "captions"))
    assert (category.names, category.true) == (pytest.approx(2 / 3), 1)


def test_a_report_without_captions_is_refused(store: Settings) -> None:
    with pytest.raises(VitrineError, match="product_caption"):
        report.evaluate_captions(store, held_out=None, truth=None, seed=0)


def test_a_report_on_captions_of_products_without_a_title_is_refused(store: Settings) -> None:
    ingest(store, {"product_id": "a", "title": None, "image": b"not a picture", "price": 1.0})
    rows = delta.read(store.table("product_catalogue")).select(["product_id", "event_timestamp"])
    columns = {"caption": ["红色裙子"], "captioner_version": ["small@1"]}
    for name, values in (columns | {"created_timestamp": pa.array([NOW], pa.timestamp("us", "UTC"))}).items():
        rows = rows.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    delta.append(store.table("product_caption"), rows)
    with pytest.raises(NotFoundError, match="no product that has a caption has a title"):
        report.evaluate_captions(store, held_out=None, truth=None, seed=0)


def test_a_word_inside_a_longer_word_is_not_counted_and_latin_words_match_as_a_whole() -> None:
    ages = {"toddler": ["幼儿", "2T"], "preschool": ["幼儿园", "kid"]}
    assert vocabulary.find_values("幼儿园新款", ages) == {"preschool"}
    assert vocabulary.find_values("幼儿园幼儿", ages) == {"preschool", "toddler"}
    assert vocabulary.find_values("kids 2t", ages) == {"toddler"}
