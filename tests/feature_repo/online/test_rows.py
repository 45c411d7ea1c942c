"""Packed rows: every type is read as it was written, and damaged rows are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.arrow import columns
from feature_repo.arrow.field import Field
from feature_repo.errors import InvalidInputError, VitrineError
from feature_repo.online import quantization
from feature_repo.online.decode import Status, decode_rows
from feature_repo.online.encode import encode_rows
from feature_repo.online.row_format import Layout
from tests.feature_repo.online import slow_row
from tests.feature_repo.online.strategies import TIMESTAMPS, round_to_storage, tables

GOLDEN = Path(__file__).parents[2] / "golden"


def to_columns(layout: Layout, rows: list[dict[str, Any]]) -> dict[str, columns.Column]:
    return {
        field.name: columns.from_arrow(field, pa.array([row[field.name] for row in rows], columns.arrow_type(field)))
        for field in layout.fields
    }


def collect_dictionaries(layout: Layout, rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {
        field.name: sorted({row[field.name] for row in rows if row[field.name] is not None})
        for field in layout.fields
        if field.storage == "dictionary"
    }


def pack(layout: Layout, rows: list[dict[str, Any]], event: list[int] | None = None) -> list[bytes]:
    times = np.array(range(len(rows)) if event is None else event, np.int64)
    return encode_rows(layout, to_columns(layout, rows), times, None, collect_dictionaries(layout, rows))


def to_python(column: columns.Column) -> list[Any]:
    """Return a column as Python values; timestamps as seconds."""
    array = columns.to_arrow(column)
    if isinstance(array.type, pa.DictionaryType):
        array = array.dictionary_decode()
    if column.field.base == "unix_timestamp":
        array = array.cast(pa.list_(pa.int64()) if column.field.is_list else pa.int64())
    return array.to_pylist()


def is_equal(one: Any, other: Any) -> bool:
    """Return whether two values are equal; NaN equals NaN."""
    return repr(one) == repr(other)


@given(table=tables(), data=st.data())
def test_the_slow_decoder_reads_what_was_encoded(
    table: tuple[Layout, list[dict[str, Any]]], data: st.DataObject
) -> None:
    layout, rows = table
    times = data.draw(st.lists(TIMESTAMPS, min_size=len(rows), max_size=len(rows)))
    created = [time + 5 for time in times]
    dictionaries = collect_dictionaries(layout, rows)
    packed = encode_rows(
        layout, to_columns(layout, rows), np.array(times, np.int64), np.array(created, np.int64), dictionaries
    )
    for row, source, event in zip(packed, rows, times, strict=True):
        decoded = slow_row.read_row(row, layout.to_json(), dictionaries)
        expected = {field.name: round_to_storage(field, source[field.name]) for field in layout.fields}
        assert is_equal(decoded, {"event": event, "created": event + 5, "fingerprint": layout.fingerprint} | expected)


@given(table=tables(), data=st.data())
def test_rows_are_decoded_in_the_order_of_the_request(table: tuple[Layout, list[dict[str, Any]]], data: Any) -> None:
    layout, rows = table
    requested = data.draw(st.lists(st.none() | st.integers(0, len(rows) - 1) if rows else st.none(), max_size=8))
    packed = pack(layout, rows)
    decoded = decode_rows(
        [None if i is None else packed[i] for i in requested],
        {layout.fingerprint: layout},
        layout.fields,
        collect_dictionaries(layout, rows),
    )
    assert decoded.status.tolist() == [Status.ABSENT if i is None else Status.PRESENT for i in requested]
    assert decoded.event_timestamp_us.tolist() == [i or 0 for i in requested]
    for field in layout.fields:
        expected = [None if i is None else round_to_storage(field, rows[i][field.name]) for i in requested]
        assert is_equal(to_python(decoded.columns[field.name]), expected), field


@given(table=tables(), data=st.data())
def test_a_damaged_row_is_refused_and_its_neighbours_are_read(table: Any, data: st.DataObject) -> None:
    layout, rows = table
    if not rows:
        return
    packed: list[bytes | None] = list(pack(layout, rows))
    damaged = data.draw(st.integers(0, len(rows) - 1))
    row = packed[damaged]
    assert row is not None
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(row) - 1))
        packed[damaged] = row[:at] + bytes([row[at] ^ data.draw(st.integers(1, 255))]) + row[at + 1 :]
    else:
        packed[damaged] = row[: data.draw(st.integers(0, len(row) - 1))]
    decoded = decode_rows(packed, {layout.fingerprint: layout}, layout.fields, collect_dictionaries(layout, rows))
    assert decoded.status.tolist() == [Status.FAILED if i == damaged else Status.PRESENT for i in range(len(rows))]
    for field in layout.fields:
        expected = [None if i == damaged else round_to_storage(field, r[field.name]) for i, r in enumerate(rows)]
        assert is_equal(to_python(decoded.columns[field.name]), expected)


@given(table=tables(), data=st.data())
def test_rows_checked_together_are_decoded_as_rows_checked_one_by_one(table: Any, data: st.DataObject) -> None:
    """Beside an absent row and a damaged one, rows are checked one by one."""
    layout, rows = table
    if not rows:
        return
    packed = pack(layout, rows)
    requested = [packed[i] for i in data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))]
    damaged = data.draw(st.integers(0, len(requested) - 1))
    if data.draw(st.booleans()):
        requested[damaged] = data.draw(
            st.binary(max_size=48) | st.just(requested[damaged][8:]) | st.just(requested[damaged] * 2)
        )
    oldest = data.draw(st.none() | st.integers(0, len(rows)))
    layouts, dictionaries = {layout.fingerprint: layout}, collect_dictionaries(layout, rows)
    dictionaries = {name: texts[: data.draw(st.integers(0, len(texts)))] for name, texts in dictionaries.items()}
    together = decode_rows(requested, layouts, layout.fields, dictionaries, oldest_us=oldest)
    one_by_one = decode_rows([*requested, None], layouts, layout.fields, dictionaries, oldest_us=oldest)
    assert together.status.tolist() == one_by_one.status.tolist()[:-1]
    assert together.event_timestamp_us.tolist() == one_by_one.event_timestamp_us.tolist()[:-1]
    assert together.is_catalog_outdated == one_by_one.is_catalog_outdated
    for field in layout.fields:
        assert is_equal(to_python(together.columns[field.name]), to_python(one_by_one.columns[field.name])[:-1])


@pytest.mark.parametrize("brands", [["a", "b", "c"], ["a", "a brand with a longer name", None]])
def test_intact_rows_of_one_layout_are_checked_together(
    brands: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout.from_fields(
        [Field("vector", "float_list", "float16"), Field("brand", "string"), Field("price", "double")]
    )
    rows = [{"vector": [1.0, 2.0], "brand": brand, "price": None} for brand in brands]
    monkeypatch.delattr("feature_repo.online.decode._check_each")
    decoded = decode_rows(pack(layout, rows), {layout.fingerprint: layout}, layout.fields, {}, oldest_us=0)
    assert decoded.status.tolist() == [Status.PRESENT] * 3
    assert to_python(decoded.columns["brand"]) == brands
    assert to_python(decoded.columns["vector"]) == [[1.0, 2.0]] * 3
    assert to_python(decoded.columns["price"]) == [None] * 3


def test_rows_of_different_sizes_with_the_sum_of_equal_ones_are_decoded() -> None:
    layout = Layout.from_fields([Field("title", "string")])
    titles = ["t" * size for size in (20, 15, 30)]
    rows = pack(layout, [{"title": title} for title in titles])
    assert 3 * len(rows[0]) == sum(map(len, rows))
    assert to_python(decode_rows(rows, {layout.fingerprint: layout}, layout.fields, {}).columns["title"]) == titles


def test_rows_of_several_layouts_are_read_together() -> None:
    old = Layout.from_fields(
        [Field("price", "double"), Field("vector", "float_list", "float16"), Field("gone", "string")]
    )
    new = Layout.from_fields(
        [Field("vector", "float_list", length=2), Field("brand", "string"), Field("price", "float")]
    )
    rows = [
        *pack(old, [{"price": 1.5, "vector": [1.0, 2.0], "gone": "x"}]),
        *pack(new, [{"price": 2.5, "vector": [3.0, 4.0], "brand": "毛绒"}]),
    ]
    decoded = decode_rows(rows, {layout.fingerprint: layout for layout in (old, new)}, new.fields, {})
    assert columns.to_numpy(decoded.columns["vector"]).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert to_python(decoded.columns["brand"]) == [None, "毛绒"]
    assert to_python(decoded.columns["price"]) == [None, 2.5], (
        "a feature whose type changed is missing, not reinterpreted"
    )


def test_a_row_of_an_unknown_layout_is_refused() -> None:
    layout = Layout.from_fields([Field("price", "double")])
    decoded = decode_rows(pack(layout, [{"price": 1.0}]), {}, layout.fields, {})
    assert decoded.status.tolist() == [Status.FAILED]
    assert to_python(decoded.columns["price"]) == [None]


def test_the_values_of_a_stale_row_are_missing_without_keep_stale() -> None:
    layout = Layout.from_fields([Field("price", "double")])
    rows = pack(layout, [{"price": 1.0}, {"price": 2.0}], event=[99, 100])
    layouts = {layout.fingerprint: layout}
    decoded = decode_rows(rows, layouts, layout.fields, {}, oldest_us=100)
    assert decoded.status.tolist() == [Status.STALE, Status.PRESENT]
    assert to_python(decoded.columns["price"]) == [None, 2.0]
    assert decoded.event_timestamp_us.tolist() == [99, 100]
    assert to_python(
        decode_rows(rows, layouts, layout.fields, {}, oldest_us=100, keep_stale=True).columns["price"]
    ) == [
        1.0,
        2.0,
    ]


@pytest.mark.parametrize("dictionaries", [{}, {"tag": ["a"]}])
def test_a_text_without_a_code_is_an_error_that_names_the_feature(dictionaries: dict[str, list[str]]) -> None:
    layout = Layout.from_fields([Field("tag", "string", "dictionary")])
    columns = to_columns(layout, [{"tag": "a"}, {"tag": "b"}])
    with pytest.raises(InvalidInputError, match=r"feature `tag`: the dictionary of its . texts lacks '[ab]'"):
        encode_rows(layout, columns, np.zeros(2, np.int64), None, dictionaries)


def test_a_code_beyond_its_dictionary_is_refused() -> None:
    layout = Layout.from_fields([Field("tag", "string", "dictionary")])
    rows = pack(layout, [{"tag": "a"}, {"tag": "b"}])
    decoded = decode_rows(rows, {layout.fingerprint: layout}, layout.fields, {"tag": ["a"]})
    assert decoded.status.tolist() == [Status.PRESENT, Status.FAILED]


def test_values_are_written_to_the_callers_array() -> None:
    layout = Layout.from_fields([Field("vector", "float_list", "float16"), Field("score", "float")])
    rows: list[bytes | None] = list(
        pack(layout, [{"vector": [1.0, 2.0], "score": 1.0}, {"vector": None, "score": 2.0}])
    )
    layouts = {layout.fingerprint: layout}
    out = {"vector": np.zeros((3, 2), np.float32), "score": np.zeros(3, np.float32)}
    decoded = decode_rows([*rows, None], layouts, layout.fields, {}, out=out)
    assert decoded.columns["vector"].values is out["vector"]
    np.testing.assert_array_equal(out["vector"], [[1, 2], [np.nan, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(out["score"], [1, 2, np.nan])
    whole = {"vector": np.zeros((2, 2), np.float32)}
    decode_rows([rows[0], rows[0]], layouts, layout.fields, {}, out=whole)
    np.testing.assert_array_equal(whole["vector"], [[1, 2], [1, 2]])
    with pytest.raises(VitrineError, match=r"out\[`vector`\] is float32 \[2, 3\], expected float32 \[2, 2\]"):
        decode_rows([rows[0], rows[0]], layouts, layout.fields, {}, out={"vector": np.zeros((2, 3), np.float32)})


@given(st.lists(st.floats(width=16), min_size=1, max_size=20))
def test_float16_is_widened_exactly(values: list[float]) -> None:
    layout = Layout.from_fields([Field("v", "float_list", "float16", len(values))])
    row = pack(layout, [{"v": values}])
    decoded = columns.to_numpy(decode_rows(row, {layout.fingerprint: layout}, layout.fields, {}).columns["v"])
    np.testing.assert_array_equal(decoded[0], np.array(values, np.float16).astype(np.float32))


@given(st.lists(st.floats(-65_519, 65_519, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 2.0**-25, -0.0])))
def test_float16_is_rounded_to_nearest(values: list[float]) -> None:
    """As NumPy rounds them."""
    decoded = quantization.narrow_floats(np.array([values], np.float32), np.dtype("<f2"), "v")
    np.testing.assert_array_equal(decoded, np.array([values], np.float32).astype(np.float16), strict=True)
    np.testing.assert_array_equal(np.signbit(decoded), np.signbit(np.array([values], np.float32)))


def test_a_value_that_its_storage_cannot_hold_raises_an_error_with_the_feature() -> None:
    for storage, value, message in [("float16", 70_000.0, "70000 exceeds float16"), ("int8", np.inf, "finite")]:
        with pytest.raises(VitrineError, match=f"feature `v`.*{message}"):
            pack(Layout.from_fields([Field("v", "float_list", storage)]), [{"v": [value]}])
    with pytest.raises(VitrineError, match=r"`v`: expected lists of 3 elements, got one of 2"):
        pack(Layout.from_fields([Field("v", "float_list", length=3)]), [{"v": [1.0, 2.0]}])
    with pytest.raises(VitrineError, match=r"storage `int8` is not one of plain, dictionary"):
        Field("v", "string", "int8")


def test_a_long_row_does_not_pad_other_rows() -> None:
    layout = Layout.from_fields([Field("text", "string")])
    rows = pack(layout, [{"text": "x"}, {"text": "y" * 1_000_000}, {"text": None}])
    assert [len(row) for row in rows] == [32, 1_000_032, 32]
    assert to_python(decode_rows(rows, {layout.fingerprint: layout}, layout.fields, {}).columns["text"]) == [
        "x",
        "y" * 1_000_000,
        None,
    ]


def test_the_layout_does_not_depend_on_the_order_of_its_fields() -> None:
    fields = [Field("b", "double"), Field("a", "string"), Field("v", "float_list"), Field("c", "double")]
    assert Layout.from_fields(fields) == Layout.from_fields(reversed(fields))
    assert Layout.from_json(json.loads(json.dumps(Layout.from_fields(fields).to_json()))) == Layout.from_fields(fields)


def test_a_row_of_128_float16_and_three_tags_with_their_probabilities_takes_304_bytes() -> None:
    layout = Layout.from_fields(
        [
            Field("vector", "float_list", "float16"),
            *(Field(tag, "string", "dictionary") for tag in "abc"),
            *(Field(f"{tag}_probability", "float") for tag in "abc"),
        ]
    )
    row = {"vector": [0.5] * 128} | dict.fromkeys("abc", "toys") | {f"{tag}_probability": 0.5 for tag in "abc"}
    assert [len(packed) for packed in pack(layout, [row])] == [304]


def golden_rows() -> tuple[Layout, list[dict[str, Any]]]:
    layout = Layout.from_fields(
        [
            Field("price", "double"),
            Field("clicks", "int64"),
            Field("on_sale", "bool"),
            Field("listed", "unix_timestamp"),
            Field("category", "string", "dictionary"),
            Field("fused", "float_list", "float16", 4),
            Field("small", "float_list", "int8", 4),
            Field("history", "double_list"),
            Field("title", "string"),
            Field("bought", "string_list"),
        ]
    )
    return layout, [
        {
            "price": 9.99,
            "clicks": 7,
            "on_sale": True,
            "listed": 1_700_000_000,
            "category": "toys",
            "fused": [0.5, -0.5, 0.25, 0.0],
            "small": [1.0, -0.5, 0.25, 0.0],
            "history": [1.5, 2.5],
            "title": "毛绒 bear 🧸",
            "bought": ["p1", "", "p22"],
        },
        dict.fromkeys(layout.fields_by_name),
    ]


def test_rows_written_by_earlier_versions_are_read() -> None:
    layout, rows = golden_rows()
    kept = json.loads((GOLDEN / "packed_rows.json").read_text())
    assert [row.hex() for row in pack(layout, rows, event=[1_700_000_000_123_456, 0])] == kept["rows"]
    stored = Layout.from_json(kept["fields"])
    decoded = decode_rows(
        [bytes.fromhex(row) for row in kept["rows"]], {stored.fingerprint: stored}, stored.fields, kept["words"]
    )
    for field in stored.fields:
        assert is_equal(
            to_python(decoded.columns[field.name]), [round_to_storage(field, row[field.name]) for row in rows]
        )


if __name__ == "__main__":
    layout, rows = golden_rows()
    packed = [row.hex() for row in pack(layout, rows, event=[1_700_000_000_123_456, 0])]
    golden = {"fields": layout.to_json(), "words": collect_dictionaries(layout, rows), "rows": packed}
    (GOLDEN / "packed_rows.json").write_text(json.dumps(golden, indent=1) + "\n")
