"""Ids, titles, categories and brands that look equal are equal, counted, and refused where ids become one."""

import unicodedata
from datetime import timedelta

import pytest

from feature_repo.config import Settings
from producers.catalogue import ingest as catalogue
from producers.catalogue.repeated_ids import SAME_LOOKING_ID
from tests.producers.catalogue.shop import NOW, ingest, read_catalogue

DAY = timedelta(days=1)


def test_odd_spellings_of_yesterdays_products_change_nothing(store: Settings):
    plain = {"product_id": "café-9", "title": "Rock & Co", "category": "Toys & Games>Cars", "brand": "Acme Kids"}
    odd = {
        "product_id": "\ufeff" + unicodedata.normalize("NFD", "café-9") + "\u3000",
        "title": "Rock &amp; Co\u200b ",
        "category": "Toys &amp; Games  > Cars >",
        "brand": "Acme\xa0Kids",
    }
    ingest(store, plain)
    summary = ingest(store, odd, now=NOW + DAY)
    assert (summary.new, summary.unchanged, summary.gone) == (0, 1, 0)
    (row,) = read_catalogue(store)
    assert {name: row[name] for name in plain} == plain


def test_normalised_values_are_counted_by_column_with_an_example(store: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue, "BLOCK_ROWS", 2)
    rows = [{"product_id": f"p{row} ", "category": "a > b" if row < 2 else "a>b"} for row in range(5)]
    assert [str(values) for values in ingest(store, *rows).normalized] == [
        "normalized 5: product_id, such as 'p0 ' to 'p0'",
        "normalized 2: category, such as 'a > b' to 'a>b'",
    ]
    assert "  normalized 5: product_id, such as 'p0 ' to 'p0'" in str(ingest(store, *rows, now=NOW + DAY)).splitlines()


def test_ids_that_become_one_are_refused_with_both_spellings(store: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogue, "BLOCK_ROWS", 2)
    ingest(store, {"product_id": "p1", "title": "old"}, {"product_id": "p2"})
    rows = [{"product_id": name, "title": "new"} for name in ("p1", "p2", "p1\u200b", "p2", "p3 ")]
    summary = ingest(store, *rows, now=NOW + DAY)
    assert [(row.row_id, row.reason, row.value) for row in summary.refused][:2] == [
        ("p1", SAME_LOOKING_ID, r"'p1' and 'p1\u200b'"),
        ("p1", SAME_LOOKING_ID, r"'p1' and 'p1\u200b'"),
    ]
    assert (summary.read, summary.new, summary.changed, len(summary.refused), summary.gone) == (5, 1, 1, 3, 0)
    titles = {row["product_id"]: row["title"] for row in read_catalogue(store) if row["created_timestamp"] > NOW}
    assert titles == {"p2": "new", "p3": "new"}
    assert rf"  refused 2: {SAME_LOOKING_ID}, such as 'p1' and 'p1\u200b' of p1" in str(summary).splitlines()


def test_a_repeated_id_with_one_odd_spelling_is_no_collision(store: Settings):
    summary = ingest(store, {"product_id": "p1 ", "title": "first"}, {"product_id": "p1 ", "title": "second"})
    assert [row["title"] for row in read_catalogue(store)] == ["second"]
    assert len(summary.refused) == 1
