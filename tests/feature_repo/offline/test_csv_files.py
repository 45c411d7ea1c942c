"""CSV files as shops send them: misshapen rows, quotes, encodings, separators, first lines."""

import csv
import io
import re
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.errors import InvalidInputError, UsageError
from feature_repo.offline import csv_files, input_files
from feature_repo.table_format import DEFAULT_FORMAT, TableFormat

HEADER = b"id,title,price\n"
FIRST, LAST = b"a,red,1\n", b"z,blue,2\n"


def read(
    folder: Path, content: bytes, table_format: TableFormat = DEFAULT_FORMAT
) -> tuple[list[list[object]], list[tuple[str, str]]]:
    """Return the rows of a CSV of three columns, and the name and reason of each refused row."""
    (folder / "t.csv").write_bytes(content)
    table, refused = csv_files.read_csv(folder / "t.csv", table_format, frozenset(["id", "title"]))
    assert all(row.column == csv_files.WHOLE_ROW and row.value for row in refused)
    return [list(row.values()) for row in table.to_pylist()], [(row.row_id, row.reason) for row in refused]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"m,green, dark,3\n", csv_files.WRONG_FIELDS),
        (b"m,green\n", csv_files.WRONG_FIELDS),
        (b'm,"green",3,4\n', csv_files.WRONG_FIELDS),
        (b'm,"12 inch,3\n', csv_files.BAD_QUOTE),
        (b'm,"12\\" doll, red",3\n', csv_files.BAD_QUOTE),
        (b'm,"12" doll,3\n', csv_files.BAD_QUOTE),
        (b"m,gre\ren,3\n", csv_files.BAD_QUOTE),
        (b"id,title,price\n", csv_files.REPEATED_HEADER),
        (b"m,\xff,green,3\n", csv_files.WRONG_FIELDS),
    ],
)
def test_a_misshapen_row_is_refused_alone_with_the_number_of_its_line(row: bytes, reason: str, tmp_path: Path) -> None:
    for end in (b"\n", b"\r\n"):
        content = (HEADER + FIRST + b"\n" + row + LAST).replace(b"\n", end)
        assert read(tmp_path, content) == ([["a", "red", 1], ["z", "blue", 2]], [("line 4", reason)])
        assert read(tmp_path, (HEADER + FIRST + row).replace(b"\n", end).rstrip())[1] == [("line 3", reason)]


@pytest.mark.parametrize(
    ("row", "title"),
    [
        (b'm,"green, dark",3\n', "green, dark"),
        (b'm,"12"" doll",3\n', '12" doll'),
        (b'm,12" doll,3\n', '12" doll'),
        (b'm, "green, dark",3\n', "green, dark"),
        (b'm,"two\nlines, one\n\ntitle",3\n', "two\nlines, one\n\ntitle"),
        (b'm,"id,title,price\nid,title,price",3\n', "id,title,price\nid,title,price"),
    ],
)
def test_a_well_formed_quote_is_read(row: bytes, title: str, tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + FIRST + row + LAST) == ([["a", "red", 1], ["m", title, 3], ["z", "blue", 2]], [])


def test_an_open_quote_does_not_take_the_rows_up_to_the_next_quote(tmp_path: Path) -> None:
    rows = b"".join(b"r%d,red,%d\n" % (number, number) for number in range(50))
    found, refused = read(tmp_path, HEADER + b'm,"open,0\n' + rows + b'n,"x, y",9\n' + b'o,"open,0\n' + rows)
    assert [row[0] for row in found] == [*(f"r{n}" for n in range(50)), "n", *(f"r{n}" for n in range(50))]
    assert refused == [("line 2", csv_files.BAD_QUOTE), ("line 54", csv_files.BAD_QUOTE)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id;title;price\na;red;1\n", "separated by ';'"),
        (b"id\ttitle\tprice\na\tred\t1\n", r"separated by '\t'"),
        (b"id|title|price\na|red|1", "separated by '|'"),
        (b"sep=;\r\nid;title;price\r\na;red;1\r\n", "begins in line 2"),
        (b"# exported, today\n\n# by us\nid,title,price\na,red,1\n", "begins in line 4"),
        ("id\ttitle\tprice\na\tred\t1\n".encode("utf-16"), "utf-16-le"),
        (b"\xfe\xff" + "id,title,price\na,red,1\n".encode("utf-16-be"), "utf-16-be"),
        (b"\xef\xbb\xbfid,title,price\na,red,1\n", ""),
        (b"id, title , price\n\na,red,1\n,,\n  \n", ""),
        (b"id,title,price\ra,red,1\r", ""),
    ],
)
def test_what_the_file_says_of_itself_is_used_and_named(
    content: bytes, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(tmp_path, content) == ([["a", "red", 1]], [])
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)


def test_options_take_the_place_of_what_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = "编号;标题;price\na;红色, 大;1\n".encode("gbk")
    options = TableFormat.from_options("gbk", ";", ["编号=id", "标题=title"], None)
    assert read(tmp_path, content, options) == ([["a", "红色, 大", 1]], [])
    assert caplog.text == ""
    (tmp_path / "t.csv").write_bytes(content)
    assert input_files.read_table(tmp_path / "t.csv", ["id"], table_format=options).column_names == [
        "id",
        "title",
        "price",
    ]
    table = input_files.read_table(tmp_path / "t.csv", ["id"], table_format=TableFormat("gbk"))
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for read_again in (
        input_files.read_table(tmp_path / "t.parquet", table_format=options),
        next(input_files.read_blocks(tmp_path / "t.parquet", 9, table_format=options)),
    ):
        assert read_again.column_names == ["id", "title", "price"]


def test_a_file_in_another_encoding_is_one_line_that_shows_what_it_reads_as(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"p{number},红色童裙,1\n" for number in range(3)).encode("gbk")
    with pytest.raises(
        InvalidInputError,
        match=r"3 of 4 rows are not UTF-8, such as line 2: in gbk it reads 'p0,红色童裙,1'.*--encoding",
    ):
        read(tmp_path, HEADER + rows + LAST)
    with pytest.raises(InvalidInputError, match=r"header is not UTF-8: in gbk it reads '编号,.*--encoding"):
        read(tmp_path, "编号,标题,价\n".encode("gbk"))
    with pytest.raises(InvalidInputError, match=r"looks like UTF-16"):
        read(tmp_path, "id,title,price\n".encode("utf-16-le"))
    with pytest.raises(InvalidInputError, match=r"line 2 is not gbk"):
        read(tmp_path, HEADER + b"\xff\xff,a,b\n", TableFormat("gbk"))
    (tmp_path / "t.csv").write_bytes(HEADER + rows[:14] + FIRST + LAST)
    input_files.read_table(tmp_path / "t.csv", ["id", "title"], allow_invalid_utf8=True)
    assert "1 of 3 rows are not UTF-8" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n"])
def test_a_file_without_a_header_is_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"t.csv: has no header"):
        read(tmp_path, content)


def test_a_file_without_a_readable_row_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(HEADER + b"a\nb\n")
    with pytest.raises(
        InvalidInputError, match=r"none of its 2 rows can be read; line 2, `.+`: row has another number"
    ):
        input_files.read_table(tmp_path / "t.csv", ["id"])
    assert read(tmp_path, HEADER)[0] == []


@pytest.mark.parametrize(
    "options",
    [
        ("no-such",),
        (None, "::"),
        (None, "é"),
        (None, None, ["a"]),
        (None, None, ["a=b,c=d"]),
        (None, None, ["a=b", "c=b"]),
        (None, None, [], "Mars"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        TableFormat.from_options(*options)  # type: ignore[arg-type]


def test_the_options_of_a_format_give_the_format_again() -> None:
    table_format = TableFormat("gbk", "\t", {"a=b": "id"}, "+08:00")
    pairs = [option.removeprefix("--").split("=", 1) for option in table_format.to_options()]
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    assert (
        TableFormat.from_options(
            values["encoding"][0], values["delimiter"][0], values["columns"], values["timezone"][0]
        )
        == table_format
    )


FIELDS = st.text(st.sampled_from('ab ,;"\n\t红\u00a0'), max_size=6)


@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_reads_every_table_that_python_writes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], delimiter: str, quoting: int, end: str
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("id", "title", "price"), *rows])
    file = tmp_path_factory.mktemp("drawn") / "t.csv"
    file.write_text(stream.getvalue(), encoding="utf-8", newline="")
    table, refused = csv_files.read_csv(file, DEFAULT_FORMAT, frozenset(["id", "title", "price"]))
    assert refused == []
    found = [[(field or "").lstrip(" ") for field in row.values()] for row in table.to_pylist()]
    wanted = [[field.lstrip(" ") for field in row] for row in rows]
    empty = re.compile(r"[\s,;|\"]*")  # such a row may be taken for a blank line
    found, wanted = ([row for row in each if not empty.fullmatch("".join(row))] for each in (found, wanted))
    assert found == wanted


@given(lines=st.lists(st.text(st.sampled_from('ab,"\r'), max_size=8), max_size=12))
def test_every_line_of_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    file = tmp_path_factory.mktemp("drawn") / "t.csv"
    file.write_bytes(HEADER + "".join(f"{line}\n" for line in lines).encode())
    table, refused = csv_files.read_csv(file, DEFAULT_FORMAT, frozenset(["id", "title", "price"]))
    numbers = [int(row.row_id.split()[1]) for row in refused]
    assert numbers == sorted(set(numbers))
    spanned = sum(value.count("\n") for row in table.to_pylist() for value in row.values() if value)
    blank = sum(not line.strip(", \r") for line in lines)
    assert table.num_rows + len(refused) + spanned + blank >= len(lines)
    assert table.num_rows + len(refused) <= len(lines)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('"b\ra",,', ["b\ra", None, None]),
        ('"\ra",,', ["\ra", None, None]),
        ('a,"\r",b', ["a", "\r", "b"]),
        ('"a\r\r",b,', ["a\r\r", "b", None]),
    ],
)
def test_a_carriage_return_within_a_quoted_field_stays(tmp_path: Path, line: str, fields: list[str | None]) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(HEADER + f"{line}\nx,y,z\n".encode())
    table, refused = csv_files.read_csv(file, DEFAULT_FORMAT, frozenset(["id", "title", "price"]))
    assert refused == []
    assert [list(row.values()) for row in table.to_pylist()] == [fields, ["x", "y", "z"]]


def test_every_row_has_the_line_in_which_it_begins(tmp_path: Path) -> None:
    content = b"\n".join(
        [
            b"# a comment, skipped",
            b"id,title,price",
            b"a,red,1",
            b"",
            b'b,"two',
            b'lines",2',
            b"c,extra,3,4",
            b"d,green,5",
            b"e,blue,6",
            b"",
        ]
    )
    (tmp_path / "t.csv").write_bytes(content)
    table, _ = csv_files.read_csv(tmp_path / "t.csv", DEFAULT_FORMAT, frozenset(["id", "title"]))
    lines = csv_files.find_lines(table)
    assert lines is not None
    assert dict(zip(table["id"].to_pylist(), lines.tolist(), strict=True)) == {"a": 3, "b": 5, "d": 8, "e": 9}
    blocks = list(input_files.read_blocks(tmp_path / "t.csv", 3))
    assert [csv_files.find_lines(block, start).tolist() for block, start in zip(blocks, (0, 3), strict=True)] == [
        [3, 5, 8],
        [9],
    ]
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert csv_files.find_lines(input_files.read_table(tmp_path / "t.parquet")) is None
