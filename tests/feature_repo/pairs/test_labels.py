"""Judged pairs as CSV: what is read, and what is refused with one line."""

from pathlib import Path

import pyarrow as pa
import pytest

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.pairs.labels import read_judgements, select_pairs

HEADER = "pair_id,product_id_l,product_id_r,label,labeller,labelled_at,inclusion_probability\n"
IDS = pa.array(["a", "b", "c"])


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    file = folder / "pairs.csv"
    file.write_text(header + "".join(f"{line}\n" for line in lines))
    return file


def test_pairs_are_weighted_by_their_inclusion_and_unsure_ones_are_left_out(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "1,b,a,same,ann,2026-03-01T12:00:00Z,0.1",
        "2,a,c,similar,ann,,0.5",
        "3,b,c,unsure,ann,,0.5",
    )
    pairs = select_pairs(read_judgements(file), IDS)
    assert (pairs.left.tolist(), pairs.right.tolist()) == ([0, 0], [1, 2])
    assert pairs.is_same.tolist() == [True, False]
    assert pairs.weight.tolist() == pytest.approx([10 / 6, 2 / 6])


def test_one_pair_judged_twice_with_one_answer_counts_once(tmp_path: Path) -> None:
    file = write(tmp_path, "1,a,b,same,ann,,1", "1,b,a,same,ben,,1")
    assert len(select_pairs(read_judgements(file), IDS).left) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,a,a,same,,,1", "line 2: a and a are not two different products"),
        ("1,a,b,equal,,,1", "line 2: label is 'equal'"),
        ("1,a,b,same,,,0", r"line 2: inclusion_probability is 0"),
        ("1,a,b,same,,yesterday,1", "line 2: inclusion_probability or labelled_at"),
        ("1,a,b,same,,2026-03-01T12:00:00,1", "line 2: labelled_at has no time zone"),
        ("1,a,b,same,,0001-01-01T00:00:00+23:00,1", "line 2: labelled_at is 0001"),
        ("1,a,b,same,,,1e-320", "line 2: inclusion_probability is 1e-320"),
        ("1,a,b,same,,,1,7", "line 2: more fields"),
        ('1,"a,b,same,,,1', "not a CSV in UTF-8"),
        (f"1,{'x' * 200_000},b,same,,,1", "not a CSV in UTF-8"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_judgements(write(tmp_path, line))


def test_a_file_that_is_not_utf_8_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_bytes((HEADER + "1,a,b,same,安,,1\n").encode("gbk"))
    with pytest.raises(InvalidInputError, match=r"pairs\.csv: not a CSV in UTF-8"):
        read_judgements(file)


def test_unknown_ids_and_two_answers_for_one_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="product_id_r z is not in the catalogue"):
        select_pairs(read_judgements(write(tmp_path, "1,a,z,same,,,1")), IDS)
    with pytest.raises(InvalidInputError, match="has two answers"):
        select_pairs(read_judgements(write(tmp_path, "1,a,b,same,,,1", "1,b,a,different,,,1")), IDS)


def test_of_repeated_pairs_the_answer_of_most_counts_and_a_tie_is_left_out(tmp_path: Path) -> None:
    lines = [
        "1,a,b,same,,,1",
        "2,b,a,different,,,1",
        "3,a,b,same,,,1",
        "4,a,c,same,,,1",
        "5,c,a,similar,,,1",
        "6,b,c,,,,1",
    ]
    pairs = select_pairs(read_judgements(write(tmp_path, *lines)), IDS)
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.is_same.tolist()) == ([0], [1], [True])


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_judgements(tmp_path / "absent.csv")
    with pytest.raises(InvalidInputError, match="no column label"):
        read_judgements(write(tmp_path, header="product_id_l,product_id_r\n"))
