"""Which rows of an impressions file are used, and what happens to the others."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.offline import impressions, quarantine, validation
from feature_repo.offline.impressions import load_impressions, read_impressions
from tests.feature_repo.features import world
from tests.feature_repo.offline.impression_files import GOOD, NOW, read, reasons, write_impressions


def test_a_row_that_is_not_utf8_is_refused_alone(tmp_path: Path) -> None:
    for name in ("impressions.parquet", "impressions.csv"):
        file = write_impressions(tmp_path, {}, {"impression_id": "i2", "user_id": "????"}, name=name)
        if name.endswith("csv"):
            file.write_bytes(file.read_bytes().replace(b"????", "宝宝".encode("gbk")))
        else:
            table = pyarrow.parquet.read_table(file)
            users = pa.array([b"u1", "宝宝".encode("gbk")]).view(pa.string())
            pyarrow.parquet.write_table(table.set_column(table.column_names.index("user_id"), "user_id", users), file)
        found = read_impressions(file, now=NOW)
        assert (found.table["user_id"].to_pylist(), reasons(found)) == (["u1"], [("i2", "user_id", "not UTF-8")])


def test_keeps_the_documented_columns_and_every_context_column_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "position": 3, "child_age_months": 7.5, "child_gender": "girl"})
    assert found.table.schema.names == [*schema.IMPRESSIONS.names, "position", "child_age_months", "child_gender"]
    assert [found.table.schema.field(name) for name in schema.IMPRESSIONS.names] == list(schema.IMPRESSIONS)
    assert found.table.schema.field("child_age_months").type == pa.float32()
    assert found.table["impression_id"].to_pylist() == ["i1", "i2"]
    assert found.table["event_timestamp"].to_pylist() == [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)] * 2
    assert (found.read, found.refused, found.notes) == (2, [], [])


def test_reads_a_csv_as_it_reads_parquet(tmp_path: Path) -> None:
    rows = (
        {"impression_id": "7", "clicked": 0, "child_age_months": 7.5, "child_gender": "girl"},
        {"impression_id": "👶🏽 طفل", "product_id": "nobody knows"},
        {"impression_id": "8", "clicked": 2},
        {"impression_id": "7"},
        {"impression_id": None},
        {"impression_id": "9", "user_id": None},
        {"impression_id": "10", "event_timestamp": "2026-01-02T03:04:05"},
        {"impression_id": "11", "event_timestamp": "2027-01-01T00:00:00Z"},
        {"impression_id": "12", "event_timestamp": "soon"},
        {"impression_id": "13", "event_timestamp": None},
        {"impression_id": "14", "child_age_months": -1.0, "child_gender": "cat"},
    )
    found = read_impressions(write_impressions(tmp_path, *rows, name="impressions.csv"), now=NOW)
    same = read_impressions(write_impressions(tmp_path, *rows), now=NOW)
    assert found.table.to_pylist() == same.table.to_pylist()
    assert found.table["impression_id"].to_pylist() == ["7", "👶🏽 طفل", "9", "14"]
    assert reasons(found) == [("line 6" if name == "row 5" else name, *why) for name, *why in reasons(same)]
    assert len(found.refused) == 7


@pytest.mark.parametrize("clicked", [2, -1, None, 0.5, float("nan")])
def test_refuses_a_click_that_is_neither_zero_nor_one(clicked: object, tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "clicked": clicked})
    assert reasons(found) == [("i2", "clicked", impressions.NOT_A_CLICK)]
    assert found.table["clicked"].to_pylist() == [1]


def test_accepts_true_and_false_as_clicks(tmp_path: Path) -> None:
    file = write_impressions(tmp_path, {"clicked": True}, {"impression_id": "i2", "clicked": False})
    assert read_impressions(file, now=NOW).table["clicked"].to_pylist() == [1, 0]


@pytest.mark.parametrize("column", ["impression_id", "product_id"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_refuses_a_null_or_blank_id(column: str, value: str | None, tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", column: value})
    assert reasons(found) == [("row 2" if column == "impression_id" else "i2", column, impressions.NO_ID)]
    assert found.refused[0].value == value


def test_keeps_the_first_of_two_rows_of_one_impression(tmp_path: Path) -> None:
    found = read(tmp_path, {"clicked": 0}, {"impression_id": "i2"}, {"clicked": 0})
    assert reasons(found) == [("i1", "impression_id", impressions.DUPLICATE_ID)] * 2
    assert found.table.select(["impression_id", "clicked"]).to_pylist() == [
        {"impression_id": "i1", "clicked": 1},
        {"impression_id": "i2", "clicked": 1},
    ]


def test_a_refused_row_does_not_replace_a_valid_row_with_its_id(tmp_path: Path) -> None:
    found = read_impressions(write_impressions(tmp_path, {"clicked": 9}, {"clicked": 0}), now=NOW)
    assert found.table["clicked"].to_pylist() == [0]
    assert reasons(found) == [("i1", "clicked", impressions.NOT_A_CLICK)]


def test_refuses_a_row_with_two_faults_once(tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "user_id": None, "clicked": 7, "event_timestamp": "soon"})
    assert len(found.refused) == 1
    assert found.read == found.table.num_rows + len(found.refused)


def test_a_negative_age_and_an_unknown_gender_are_set_to_null_and_reported(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"impression_id": "i2", "child_age_months": -3.0, "child_gender": "cat"},
        {"impression_id": "i3", "child_age_months": float("nan"), "child_gender": None},
        {"impression_id": "i4", "child_age_months": 0.0, "child_gender": "boy"},
    )
    assert found.table["child_age_months"].to_pylist() == [None, None, None, 0.0]
    assert found.table["child_gender"].to_pylist() == [None, None, None, "boy"]
    assert [(note.row_id, note.column, note.value) for note in found.notes] == [
        ("i2", "child_age_months", "-3.0"),
        ("i2", "child_gender", "cat"),
    ]
    assert found.refused == []


@pytest.mark.parametrize("column", schema.IMPRESSIONS.names)
def test_a_missing_column_raises_one_line_that_names_it(column: str, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist([GOOD]).drop_columns(column), tmp_path / "short.parquet")
    with pytest.raises(VitrineError, match=rf"short.parquet: no column {column}; expected .*; it has .*") as caught:
        read_impressions(tmp_path / "short.parquet", now=NOW)
    assert "\n" not in str(caught.value)


def test_a_repeated_column_raises_one_line_that_names_it(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOD])
    for name in ("clicked", "user_id"):
        table = table.append_column(name, table[name])
    pyarrow.parquet.write_table(table, tmp_path / "twice.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "twice.csv")
    for file in ("twice.parquet", "twice.csv"):
        with pytest.raises(VitrineError, match=rf"{file}: .*user_id") as caught:
            read_impressions(tmp_path / file, now=NOW)
        assert "\n" not in str(caught.value)


def test_an_empty_table_raises_one_line(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(schema.IMPRESSIONS.empty_table(), tmp_path / "none.parquet")
    with pytest.raises(VitrineError, match=r"none.parquet: the table is empty"):
        read_impressions(tmp_path / "none.parquet", now=NOW)


def test_a_file_without_a_valid_row_raises_one_line_that_counts_the_reasons(tmp_path: Path) -> None:
    file = write_impressions(tmp_path, {"clicked": 5}, {"clicked": 6})
    with pytest.raises(
        VitrineError, match=r"none of its 2 rows is usable: 2 x clicked is none of 1, 0, .*, such as '5'"
    ):
        read_impressions(file, now=NOW)


@pytest.mark.parametrize(
    ("column", "values", "wanted"),
    [
        ("event_timestamp", pa.array([datetime(2026, 1, 1)], pa.timestamp("us")), "without a time zone"),
        ("event_timestamp", pa.array([date(2026, 1, 1)]), "without a time zone"),
        ("event_timestamp", pa.array([[1_767_000_000]]), "expected timestamps in UTC"),
        ("clicked", pa.array([[1]]), "expected numbers"),
        ("user_id", pa.array([1.5]), "expected text"),
    ],
)
def test_a_column_of_a_wrong_type_raises_one_line(column: str, values: pa.Array, wanted: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist([GOOD]).drop_columns(column).append_column(column, values)
    pyarrow.parquet.write_table(table, tmp_path / "wrong.parquet")
    with pytest.raises(VitrineError, match=rf"wrong.parquet: column `{column}` .*{wanted}"):
        read_impressions(tmp_path / "wrong.parquet", now=NOW)


@pytest.mark.parametrize("name", ["broken.parquet", "broken.csv", "missing.parquet", "table.xlsx"])
def test_an_unreadable_file_raises_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    if name != "missing.parquet":
        (tmp_path / name).write_bytes(b'PAR1 a,b\n1,2,3\n"')
    with pytest.raises(VitrineError, match=name) as caught:
        read_impressions(tmp_path / name, now=NOW)
    assert "\n" not in str(caught.value)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "impression_id": st.sampled_from(["a", "b", "c", "", None]),
                "user_id": st.sampled_from(["u", "guest", None]),
                "product_id": st.sampled_from(["p1", "p2"]),
                "clicked": st.sampled_from([0, 1, 2, None]),
                "event_timestamp": st.sampled_from(
                    ["2026-01-02T03:04:05Z", "2026-01-03T03:04:05+01:00", "2027-01-01T00:00:00Z", "x", None]
                ),
            }
        ),
        min_size=1,
        max_size=12,
    )
)
def test_accepts_exactly_the_rows_that_a_row_by_row_oracle_accepts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    wanted: list[tuple[int, tuple[object, object]]] = []
    for number, row in enumerate(rows):
        instant = row["event_timestamp"] in ("2026-01-02T03:04:05Z", "2026-01-03T03:04:05+01:00")
        key = (row["impression_id"], row["product_id"])
        if row["impression_id"] and row["clicked"] in (0, 1) and instant and key not in [key for _, key in wanted]:
            wanted.append((number, key))
    typed = {"position": pa.int64(), "clicked": pa.int64()}
    fields = [(name, typed.get(name, pa.string())) for name in (*GOOD, "position")]
    columns = [GOOD | row | {"position": number} for number, row in enumerate(rows)]
    file = tmp_path_factory.mktemp("drawn") / "impressions.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(columns, schema=pa.schema(fields)), file)
    if not wanted:
        with pytest.raises(VitrineError, match="is usable"):
            read_impressions(file, now=NOW)
        return
    found = read_impressions(file, now=NOW)
    keys = zip(found.table["impression_id"].to_pylist(), found.table["product_id"].to_pylist(), strict=True)
    assert list(zip(found.table["position"].to_pylist(), keys, strict=True)) == wanted
    assert set(found.table["user_id"].to_pylist()) <= {"u", None}
    assert found.read == len(rows) == found.table.num_rows + len(found.refused)


def test_a_page_of_products_with_one_impression_id_keeps_all_its_rows(tmp_path: Path) -> None:
    rows = [{"impression_id": f"page{number // 10}", "product_id": f"p{number % 10}"} for number in range(60)]
    found = read(tmp_path, *rows, rows[-1])
    assert (found.table.num_rows, reasons(found)) == (61, [("page5", "impression_id", impressions.DUPLICATE_ID)])


@pytest.mark.parametrize("user", [None, "", "\u00a0", "-1", "Guest", "null"])
def test_a_row_without_a_user_is_kept_for_its_product(user: str | None, tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "user_id": user})
    assert found.table["user_id"].to_pylist() == ["u1", None]
    assert found.refused == []
    assert [remark for remark in found.remarks if "no user" in remark] == [
        "1 of 2 impressions have no user (the id is empty or a guest's): they count for products, not for users"
    ]


def test_a_user_with_an_improbable_share_of_the_log_is_named_and_counts_for_no_user(tmp_path: Path) -> None:
    rows = [{"impression_id": f"i{number}", "user_id": f"u{number % 25}"} for number in range(25)]
    bot = [{"impression_id": f"b{number}", "user_id": "robot"} for number in range(30)]
    found = read_impressions(write_impressions(tmp_path, *rows, *bot), now=NOW)
    assert found.table["user_id"].null_count == 30
    assert [(note.row_id, note.value) for note in found.notes] == [("robot", "30 of 55 rows")]
    assert found.remarks == (
        "user 'robot' has 30 of 55 impressions, too many for one person: they count for products, not for users",
    )


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["true", "FALSE", " t ", "f"], [1, 0, 1, 0]),
        (["yes", "No", "y", "n"], [1, 0, 1, 0]),
        (["1", "0.0", "1.0", "0"], [1, 0, 1, 0]),
    ],
)
def test_clicks_are_numbers_or_words(texts: list[str], wanted: list[int], tmp_path: Path) -> None:
    rows = [{"impression_id": f"i{number}", "clicked": text} for number, text in enumerate(texts)]
    for name in ("impressions.parquet", "impressions.csv"):
        assert (
            read_impressions(write_impressions(tmp_path, *rows, name=name), now=NOW).table["clicked"].to_pylist()
            == wanted
        )


def test_ids_as_integers_floats_dictionaries_and_text_are_the_same_ids(tmp_path: Path) -> None:
    text = pa.array(["1", "2", None])
    forms = [
        text,
        text.cast(pa.int32()),
        text.cast(pa.float64()),
        text.dictionary_encode(),
        text.cast(pa.string_view()),
    ]
    base = pa.Table.from_pylist([GOOD | {"impression_id": f"i{number}"} for number in range(3)])
    for number, users in enumerate(forms):
        table = base.set_column(base.column_names.index("user_id"), "user_id", users)
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
        found = read_impressions(tmp_path / f"{number}.parquet", now=NOW)
        assert found.table["user_id"].to_pylist() == ["1", "2", None]


def test_ids_that_look_equal_are_one_id(tmp_path: Path) -> None:
    found = read(tmp_path, {"impression_id": "i2", "product_id": " p1\u200b"})
    assert found.table["product_id"].to_pylist() == ["p1", "p1"]
    assert found.remarks == ("normalized 1: product_id, such as ' p1\\u200b' to 'p1'",)


def test_a_log_may_lack_columns_that_its_reader_does_not_need(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        pa.table({"product_id": ["p1", "p1"], "event_timestamp": [1767323045, 99]}), tmp_path / "log.parquet"
    )
    found = read_impressions(tmp_path / "log.parquet", now=NOW, required=["product_id", "event_timestamp"])
    assert found.table.schema.names == ["product_id", "event_timestamp"]
    assert reasons(found) == [("p1", "event_timestamp", validation.UNPARSABLE)]


def test_too_large_a_share_of_refused_rows_is_one_line_and_leaves_the_rows_in_the_quarantine(tmp_path: Path) -> None:
    settings = world.deployment(tmp_path)
    file = write_impressions(tmp_path, *({"impression_id": f"i{n}", "event_timestamp": "1/2/26"} for n in range(3)), {})
    with pytest.raises(
        VitrineError, match=r"lost 3 of 4 values of `event_timestamp`.*cannot be parsed .*such as '1/2/26'"
    ):
        load_impressions(settings, file, step="test", now=NOW, max_lost_share=0.5)
    assert quarantine.read(settings).num_rows == 3
    assert load_impressions(settings, file, step="test", now=NOW, max_lost_share=0.75).table.num_rows == 1
