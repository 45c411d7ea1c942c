"""Prices as shops write them: read by a stated rule, or dropped by name, and never wrong."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from feature_repo.config import Settings
from producers import cli
from producers.catalogue import ingest, validate
from producers.catalogue.decimal_mark import DecimalMark
from producers.catalogue.ingest import ingest_products
from producers.catalogue.prices import find_decimal_mark, parse_price, parse_prices
from tests.producers.catalogue.shop import GOOD, NOW, read_catalogue, write_products

POINT, COMMA = DecimalMark.POINT, DecimalMark.COMMA


@pytest.mark.parametrize(
    ("text", "number", "currency"),
    [
        ("2,480.00", 2480.0, None),
        ("2.480,00", 2480.0, None),
        ("1.250.000", 1_250_000.0, None),
        ("1,25,000", 125_000.0, None),
        ("7,5", 7.5, None),
        ("0.125", 0.125, None),
        ("1234,567", 1234.567, None),
        ("2 480,00", 2480.0, None),
        ("2\u202f480", 2480.0, None),
        ("2'480.50", 2480.5, None),
        ("¥88.00", 88.0, "¥"),
        ("￥８８．５０", 88.5, "¥"),
        ("88元", 88.0, "元"),
        ("US$ 20", 20.0, "US$"),
        ("$20 USD", 20.0, "USD"),
        ("20.00 EUR", 20.0, "EUR"),
        ("chf 1'250.90", 1250.9, "CHF"),
        ("R$ 1.299,90", 1299.9, "R$"),
        ("-3", -3.0, None),
        ("1.5E+2", 150.0, None),
    ],
)
def test_reads_the_number_and_the_currency(text: str, number: float, currency: str | None):
    price = parse_price(f" {text}\xa0")
    assert (price.number, price.currency, price.is_ambiguous) == (number, currency, False)


@pytest.mark.parametrize(
    "text",
    ["", "nan", "inf", ".", "$", "20 pcs", "10-20", "from 9", "1.2.3", "1.250.00", "12,3456.00", "20 USD EUR", "1 2"],
)
def test_reads_no_number_into_other_texts(text: str):
    assert [parse_price(text, decimal).number for decimal in (None, POINT, COMMA)] == [None, None, None]


@pytest.mark.parametrize(("text", "point", "comma"), [("4.750", 4.75, 4750.0), ("¥4,750", 4750.0, 4.75)])
def test_a_number_that_is_one_with_either_mark_is_decided_only_by_the_option(text: str, point: float, comma: float):
    assert parse_price(text).is_ambiguous
    assert parse_price(text).number is None
    assert (parse_price(text, POINT).number, parse_price(text, COMMA).number) == (point, comma)


def test_with_a_mark_given_a_number_that_does_not_fit_is_none():
    assert [parse_price(text, POINT).number for text in ("7,5", "2.480,00", "0,125")] == [None, None, None]
    assert [parse_price(text, COMMA).number for text in ("7.5", "2,480.00", "0.125")] == [None, None, None]


@given(st.integers(0, 10**9), st.sampled_from(["{}", "¥{}", "{} EUR", "US${}", "{}元"]))
def test_every_amount_written_in_either_way_is_read_back(cents: int, form: str):
    written = f"{cents / 100:,.2f}"
    swapped = written.translate(str.maketrans(",.", ".,"))
    for text, mark in ((written, POINT), (swapped, COMMA)):
        for decimal in (None, mark):
            assert parse_price(form.format(text), decimal).number == pytest.approx(cents / 100, abs=1e-6)
        assert parse_price(form.format(text)).mark is mark


@given(st.lists(st.one_of(st.none(), st.text(st.sampled_from("0159.,'e- ¥元kr"), max_size=7)), max_size=6))
def test_a_column_has_the_prices_of_its_texts(texts: list[str | None]):
    for decimal in (None, POINT, COMMA):
        parsed = parse_prices(pa.chunked_array([texts[:2], texts[2:]], pa.string()), decimal)
        prices = [None if text is None else parse_price(text, decimal) for text in texts]
        expected = [None if one is None else math.nan if one.number is None else one.number for one in prices]
        assert repr(parsed.numbers.to_pylist()) == repr(expected)
        assert list(parsed.is_ambiguous) == [one is not None and one.is_ambiguous for one in prices]
        assert parsed.currencies.total() == sum(one is not None and one.currency is not None for one in prices)


def test_the_mark_of_a_column_is_the_one_on_which_all_its_prices_agree():
    def find(*blocks: list[str]) -> DecimalMark | None:
        return find_decimal_mark(pa.chunked_array([block], pa.string()) for block in blocks)

    assert find(["4.750", "20"], ["7,5", "2.480,00"]) is COMMA
    assert find(["4,750", "20.00 EUR"]) is POINT
    assert find(["4.750", "20"]) is None
    assert find(["7,5", "7.5"]) is None
    assert find_decimal_mark([pa.chunked_array([[1.5]]), pa.chunked_array([[b"\xff"]]).cast(pa.binary())]) is None


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_price_in_one_block_decides_the_mark_of_all(form: str, store: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ingest, "BLOCK_ROWS", 2)
    rows = [{"product_id": f"p{row}", "price": price} for row, price in enumerate(["4.750", "20", None, "7,50 €"])]
    file = write_products(store, *rows)
    if form == "csv":
        pyarrow.csv.write_csv(pyarrow.parquet.read_table(file), file.with_suffix(".csv"))
    summary = ingest_products(store, file.with_suffix(f".{form}"), NOW)
    assert [row["price"] for row in read_catalogue(store)] == [4750.0, 20.0, None, 7.5]
    assert (summary.repairs, summary.currencies, summary.given["price"]) == ((), {"€": 1}, 3)


def _run(store: Settings, file: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["catalogue", "--products", str(file), "--store", str(store.file), *options])
    return result.exit_code, result.output + str(result.exception)


def test_the_command_says_what_it_dropped_and_ends_with_an_error_when_that_is_too_much(store: Settings):
    prices = ["4.750", "12.900", "30", "40", "50 USD"]
    rows = [GOOD | {"product_id": f"p{row}", "price": price} for row, price in enumerate(prices)]
    file = write_products(store, *rows)
    code, output = _run(store, file)
    assert code == 1
    assert f"  dropped 2: {validate.AMBIGUOUS_PRICE}, such as '4.750' of p0" in output
    assert "lost 2 of 5 values of `price` (40%; " in output
    assert [row["price"] for row in read_catalogue(store)] == [None, None, 30.0, 40.0, 50.0]
    assert _run(store, file, "--max-lost-share", "0.4")[0] == 0
    assert _run(store, file, "--decimal", "point")[0] == 0
    newest = {row["product_id"]: row["price"] for row in read_catalogue(store)}
    assert newest == {"p0": 4.75, "p1": 12.9, "p2": 30.0, "p3": 40.0, "p4": 50.0}
