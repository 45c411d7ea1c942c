"""Figures of products that the encoder has not seen, beside those of products that it was trained on."""

import io
import math
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from consumers.tagging import report
from consumers.tagging.report import TagsReport
from consumers.tagging.terminal import render_tables
from feature_repo.config import Settings
from feature_repo.offline import delta, training_products
from feature_repo.schema import CATALOGUE, PRODUCT_EMBEDDING, PRODUCT_TAGS, TAG_PREDICTIONS, TAG_VARIANTS
from tests.producers.tags import world

PRODUCTS = 40
MONDAY = datetime.fromisoformat("2026-01-05T00:00:00+00:00")
IDS = [world.product_id(number) for number in range(PRODUCTS)]
GROUPS = [f"design {number // 2}" for number in range(PRODUCTS)]
VECTORS = np.random.default_rng(0).normal(size=(2, PRODUCTS, 6)).astype(np.float32)
TEXT, IMAGE = VECTORS / np.linalg.norm(VECTORS, axis=2, keepdims=True)


def make_table(schema: pa.Schema, columns: dict[str, list[object]]) -> pa.Table:
    """Return rows of a table; columns that are not given are null, the created timestamp is world.NOW."""
    count = len(next(iter(columns.values())))
    values = {"created_timestamp": [world.NOW] * count} | columns
    return pa.table({name: values.get(name, [None] * count) for name in schema.names}, schema=schema)


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    """A deployment in which the tagger is right for the first 30 products; ten arrive in each of four weeks."""
    store = world.store(tmp_path)
    arrivals = [MONDAY + timedelta(days=7 * (number // 10) + number % 7) for number in range(PRODUCTS)]
    for variant in TAG_VARIANTS:
        rows = {
            "product_id": IDS,
            "group": GROUPS,
            "tag": ["season"] * PRODUCTS,
            "variant": [variant] * PRODUCTS,
            "split": ["test"] * PRODUCTS,
            "truth": ["summer"] * PRODUCTS,
            "labels": [["summer", "winter"]] * PRODUCTS,
            "probabilities": [[0.9, 0.1] if number < 30 else [0.1, 0.9] for number in range(PRODUCTS)],
            "tagger_version": ["tagger-a"] * PRODUCTS,
        }
        delta.append(store.table("tag_predictions"), make_table(TAG_PREDICTIONS, rows))
    versions = {"encoder_version": ["e@1"] * PRODUCTS, "product_id": IDS, "event_timestamp": arrivals}
    delta.append(
        store.table("product_tags"), make_table(PRODUCT_TAGS, versions | {"tagger_version": ["tagger-a"] * PRODUCTS})
    )
    vectors = {"text_vector": list(TEXT), "image_vector": list(IMAGE)}
    delta.append(store.table("product_embedding"), make_table(PRODUCT_EMBEDDING, versions | vectors))
    catalogue = {"product_id": IDS * 2, "event_timestamp": arrivals + [MONDAY + timedelta(days=99)] * PRODUCTS}
    delta.append(store.table("product_catalogue"), make_table(CATALOGUE, catalogue))
    return store


def evaluate(store: Settings) -> TagsReport:
    return report.evaluate_tags(store, replicates=200, seed=0)


def test_a_group_is_seen_if_the_encoder_was_trained_on_one_of_its_products(store: Settings) -> None:
    training_products.record(store, "e@1", pa.chunked_array([IDS[:25]]), world.NOW)
    training_products.record(store, "e@2", pa.chunked_array([IDS]), world.NOW)
    result = evaluate(store)
    by_seen = result.tags[0].by_seen
    assert by_seen is not None
    assert (by_seen.seen.products, by_seen.unseen.products) == (26, 14)  # the product 25 is of the design of 24
    assert by_seen.seen.share.value == 1.0
    assert by_seen.unseen.share.value == pytest.approx(4 / 14)
    assert by_seen.unseen.share.ci95[0] < 4 / 14 < by_seen.unseen.share.ci95[1]
    assert by_seen.difference.value == pytest.approx(10 / 14)
    assert not any("flatter" in note or "not known" in note for note in result.notes)


def test_accuracy_is_given_by_the_week_of_arrival(store: Settings) -> None:
    training_products.record(store, "e@1", pa.chunked_array([IDS[:16]]), world.NOW)
    weeks = evaluate(store).tags[0].weeks
    assert [week.week for week in weeks] == ["2026-01-05", "2026-01-12", "2026-01-19", "2026-01-26"]
    assert [week.share.value for week in weeks] == [1, 1, 1, 0]
    assert [(week.products, week.unseen) for week in weeks] == [(10, 0), (10, 4), (10, 10), (10, 10)]


def test_recall_equals_that_of_a_slow_search(store: Settings) -> None:
    training_products.record(store, "e@1", pa.chunked_array([IDS[:20]]), world.NOW)
    expected: dict[int, list[bool]] = {1: [], 5: [], 10: []}
    for number in range(PRODUCTS):
        nearest = sorted(range(PRODUCTS), key=lambda other: -float(TEXT[number] @ IMAGE[other]))
        for cutoff, hits in expected.items():
            hits.append(GROUPS[number] in {GROUPS[other] for other in nearest[:cutoff]})
    for one in evaluate(store).recall:
        hits = expected[one.cutoff]
        assert one.recall.value == pytest.approx(np.mean(hits))
        assert one.by_seen is not None
        assert one.by_seen.seen.share.value == pytest.approx(np.mean(hits[:20]))
        assert one.by_seen.unseen.share.value == pytest.approx(np.mean(hits[20:]))


def test_the_report_says_that_all_products_were_seen(store: Settings) -> None:
    training_products.record(store, "e@1", pa.chunked_array([IDS]), world.NOW)
    result = evaluate(store)
    assert any("e@1 was trained on a product of every group of the test split" in note for note in result.notes)
    by_seen = result.tags[0].by_seen
    assert by_seen is not None
    assert math.isnan(by_seen.unseen.share.value)


def test_the_report_says_that_it_is_not_known_which_products_were_seen(store: Settings) -> None:
    result = evaluate(store)
    assert any("not known which products e@1 was trained on" in note for note in result.notes)
    assert result.tags[0].by_seen is None
    assert result.recall[0].by_seen is None


def test_the_tables_and_the_json_have_the_parts(store: Settings) -> None:
    from rich.console import Console

    training_products.record(store, "e@1", pa.chunked_array([IDS[:20]]), world.NOW)
    result = evaluate(store)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_tables(result))
    text = console.export_text()
    assert "20 products that the encoder has not seen: 0.500" in text
    assert "difference +50.00" in text
    assert "2026-01-26" in text
    assert "not seen by the encoder" in text
    assert '"unseen": 10' in result.to_json()


def test_products_of_an_encoder_are_recorded_once(store: Settings) -> None:
    for _ in range(2):
        training_products.record(store, "e@1", pa.chunked_array([IDS]), world.NOW)
    training_products.record(store, "e@3", None, world.NOW)
    products = training_products.read(store, "e@1")
    assert products is not None
    assert sorted(products.to_pylist()) == IDS
    assert training_products.read(store, "e@3") is None
    assert training_products.read(store, None) is None
