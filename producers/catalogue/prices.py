"""Prices as shops write them: numbers with decimal and thousands marks, and a currency beside the number.

    1690  15.5  .5  1e2            plain numbers
    1,690.00  1.690,00             both marks: the one that comes last is the decimal mark
    1.299.000  1,29,999            one mark several times, before groups of three digits: thousands
    12,50  0.129  1234,567         one mark once: the decimal mark, unless ...
    1.299  1,299                   ... one to three digits are before and three after it: ambiguous
    1 690,00  1'690.00             blanks and apostrophes separate thousands
    ¥59.00  59元  US$ 15  15 USD   a currency sign, word or ISO 4217 code before or after the number is left out
    $15 USD                        a sign before and a code after it, too

Full-width characters count as their ASCII forms. With a decimal mark given, the other one separates thousands, and a
number that does not fit is invalid. Without, an ambiguous number has no value: `find_decimal_mark` looks whether the
other prices of the column agree on a mark.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.offline import validation
from producers.catalogue.decimal_mark import DecimalMark

_SIGNS = r"[a-z]{0,3}[$¢-¥֏؋৲৳฿៛₠-₿]"
_CODES = (
    "AED|AFN|ALL|AMD|ANG|AOA|ARS|AUD|AWG|AZN|BAM|BBD|BDT|BGN|BHD|BIF|BMD|BND|BOB|BRL|BSD|BTN|BWP|BYN|BZD|CAD|"
    "CDF|CHF|CLP|CNH|CNY|COP|CRC|CUP|CVE|CZK|DJF|DKK|DOP|DZD|EGP|ERN|ETB|EUR|FJD|FKP|GBP|GEL|GHS|GIP|GMD|GNF|"
    "GTQ|GYD|HKD|HNL|HTG|HUF|IDR|ILS|INR|IQD|IRR|ISK|JMD|JOD|JPY|KES|KGS|KHR|KMF|KPW|KRW|KWD|KYD|KZT|LAK|LBP|"
    "LKR|LRD|LSL|LYD|MAD|MDL|MGA|MKD|MMK|MNT|MOP|MRU|MUR|MVR|MWK|MXN|MYR|MZN|NAD|NGN|NIO|NOK|NPR|NZD|OMR|PAB|"
    "PEN|PGK|PHP|PKR|PLN|PYG|QAR|RMB|RON|RSD|RUB|RWF|SAR|SBD|SCR|SDG|SEK|SGD|SHP|SLE|SOS|SRD|SSP|STN|SVC|SYP|"
    "SZL|THB|TJS|TMT|TND|TOP|TRY|TTD|TWD|TZS|UAH|UGX|USD|UYU|UZS|VES|VND|VUV|WST|XAF|XCD|XOF|XPF|YER|ZAR|ZMW|"
    "ZWL"
)
_WORDS = r"人民币|元|圆|圓|円|块|원|руб\.|р\.|руб|zł|kč|kr\.|kr|ft|lei|лв\.|лв|rs\.|rs|fr\.|din"
_CURRENCY = f"{_SIGNS}|{_CODES}|{_WORDS}"
_PRICE = re.compile(
    rf"(?P<before>{_CURRENCY})?\s*(?P<number>[+-]?[0-9.,][0-9.,'’\s]*(?:e[+-]?[0-9]+)?)\s*(?P<after>{_CURRENCY})?",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{2,3})*,[0-9]{3}")
_GROUPS_OF_BLANKS = re.compile(r"[0-9]{1,3}(?:['’\s][0-9]{3})+(?:[.,][0-9]*)?")
_PLAIN = re.compile(r"[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?", re.IGNORECASE)
_MARKS = {".": DecimalMark.POINT, ",": DecimalMark.COMMA}


@dataclass(frozen=True)
class Price:
    """What one text says."""

    number: float | None
    """The price, which may be negative or infinite; None if the text is no number or is ambiguous."""
    mark: DecimalMark | None = None
    """The decimal mark that the text shows by itself; None if it shows none."""
    is_ambiguous: bool = False
    """Whether the text is a number with either mark, and no mark was given."""
    currency: str | None = None
    """The currency beside the number, in capitals; None if there is none or the text is no number."""


@dataclass(frozen=True)
class ParsedPrices:
    """The prices of a column of n rows."""

    numbers: pa.ChunkedArray
    """[n] float64: null where the text is null; NaN where it is no number or is ambiguous; may be negative or
    infinite."""
    is_ambiguous: NDArray[np.bool_]
    """bool [n]"""
    currencies: Counter[str]
    """Currency in capitals -> rows that have it."""


def parse_price(text: str, decimal: DecimalMark | None = None) -> Price:
    """Read one price, as the module's table says.

    Args:
        text: the price; blanks around it do not count.
        decimal: the decimal mark of the column; None if it is not known.
    """
    match = _PRICE.fullmatch(unicodedata.normalize("NFKC", text).strip())
    if match is None or (match["before"] and match["after"] and len(match["before"]) > 1):
        return Price(None)
    number = match["number"].strip()
    sign = -1.0 if number.startswith("-") else 1.0
    price = _parse_number(number.lstrip("+-").strip(), decimal)
    if price.number is None:
        return price
    currency = match["after"] or match["before"]
    return Price(sign * price.number, price.mark, currency=currency and currency.upper())


def find_decimal_mark(columns: Iterable[pa.ChunkedArray]) -> DecimalMark | None:
    """Return the decimal mark on which all prices that show one agree; None if none shows one or two differ.

    Args:
        columns: columns of prices, such as one for each block of a file. Numbers and texts that are not UTF-8 show no
            mark.
    """
    marks = set()
    for column in columns:
        texts = as_texts(column)
        if texts is not None:
            table, _ = validation.null_invalid_utf8(pa.table({"price": texts}), ["price"])
            marks |= {parse_price(text).mark for text in table["price"].drop_null().unique().to_pylist()}
    marks -= {None}
    return marks.pop() if len(marks) == 1 else None


def as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a column of texts, dictionary-encoded or not, as string; None for a column of another type."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)
    return column.cast(pa.string()) if is_text else None


def parse_prices(column: pa.ChunkedArray, decimal: DecimalMark | None = None) -> ParsedPrices:
    """Read a column of prices. Each distinct text is parsed once.

    Args:
        column: [n] texts, as `as_texts` returns them.
        decimal: the decimal mark of the column; None if it is not known.
    """
    encoded = column.combine_chunks().dictionary_encode()
    prices = [parse_price(text, decimal) for text in encoded.dictionary.to_pylist()]
    numbers = [math.nan if price.number is None else price.number for price in prices]
    ambiguous = np.array([price.is_ambiguous for price in prices] + [False])
    rows = encoded.indices.fill_null(len(prices)).to_numpy()
    uses = np.bincount(rows, minlength=len(prices) + 1).tolist()
    currencies: Counter[str] = Counter()
    for price, count in zip(prices, uses[:-1], strict=True):
        if price.currency is not None:
            currencies[price.currency] += count
    values = pa.array(numbers, pa.float64()).take(encoded.indices)
    return ParsedPrices(pa.chunked_array([values]), ambiguous[rows], currencies)


def _parse_number(number: str, decimal: DecimalMark | None) -> Price:
    """Read a number without sign and currency."""
    if re.search(r"['’\s]", number):
        if not _GROUPS_OF_BLANKS.fullmatch(number):
            return Price(None)
        number, has_groups = re.sub(r"['’\s]", "", number), True
    else:
        has_groups = False
    points, commas = number.count("."), number.count(",")
    mark: DecimalMark | None = None
    if points and commas:
        mark = _MARKS["." if number.rindex(".") > number.rindex(",") else ","]
    elif points + commas > 1:
        mark = DecimalMark.COMMA if points else DecimalMark.POINT
    elif points + commas == 1 and "e" not in number.lower():
        before, after = re.split("[.,]", number)
        if has_groups or len(after) != 3 or not 1 <= len(before) <= 3 or before.startswith("0"):
            mark = DecimalMark.POINT if points else DecimalMark.COMMA
        elif decimal is None:
            return Price(None, is_ambiguous=True)
    plain = _remove_thousands(number, decimal or mark or DecimalMark.POINT)
    return Price(None if plain is None else float(plain), mark if plain is not None else None)


def _remove_thousands(number: str, decimal: DecimalMark) -> str | None:
    """Return a number with a point as its only mark; None if it is none with this decimal mark."""
    if decimal is DecimalMark.COMMA:
        number = number.translate(str.maketrans(".,", ",."))
    whole, point, fraction = number.partition(".")
    if "," in whole:
        if not _THOUSANDS.fullmatch(whole):
            return None
        whole = whole.replace(",", "")
    plain = whole + point + fraction
    return plain if _PLAIN.fullmatch(plain) else None
