"""Files of MUGE: what is well formed is read, and every other line is refused with its number."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.evaluation import muge
from feature_repo.evaluation.muge import CAPTIONS, PICTURES, QUERIES, QUERY_KEYS, TEXT_KEYS, Query
from feature_repo.files.json_lines import SHOWN, Malformed, require_well_formed

TEN = list(range(10))


def write(file: Path, *lines: object) -> Path:
    """Write lines; one that is no text is written as JSON."""
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return file


def refused(malformed: Malformed) -> list[tuple[int, str]]:
    return [(one.number, one.reason) for one in malformed]


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_picture_is_read_in_either_alphabet_of_base64(encode, tmp_path: Path) -> None:
    content = bytes(range(256))
    malformed: Malformed = []
    file = write(tmp_path / "valid_imgs.tsv", f"12\t{encode(content).decode()}")
    assert list(muge.read_pictures(file, malformed)) == [("12", content)]
    assert malformed == []


def test_a_malformed_picture_is_refused_with_its_number(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "1\tAAAA", "2 AAAA", "\tAAAA", "3\t", "4\tA", "5\t@@@@", "1\tBBBB", "", "6\tBBBB")
    malformed: Malformed = []
    assert [image_id for image_id, _ in muge.read_pictures(file, malformed)] == ["1", "6"]
    expected = "expected an image id, a tab and a picture in base64"
    assert refused(malformed) == [
        *((number, expected) for number in (2, 3, 4, 5, 6)),
        (7, "image id 1 occurs twice"),
        (8, "blank"),
    ]


@pytest.mark.parametrize("keys", [TEXT_KEYS, QUERY_KEYS])
def test_queries_are_read_in_both_forms_with_or_without_answers(keys, tmp_path: Path) -> None:
    rows = [dict(zip(keys, (7, "红色", [1, 2]), strict=True)), dict(zip(keys[:2], (8, "蓝色"), strict=True))]
    malformed: Malformed = []
    assert muge.read_queries(write(tmp_path / "q.jsonl", *rows), malformed) == [
        Query(7, "红色", (1, 2), keys),
        Query(8, "蓝色", (), keys),
    ]
    assert malformed == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, "query_id is missing or not an integer"),
        ({"text_id": "1", "text": "a"}, "text_id is missing or not an integer"),
        ({"text_id": True, "text": "a"}, "text_id is missing or not an integer"),
        ({"text_id": 2**80, "text": "a"}, "text_id is missing or not an integer"),
        ({"text_id": 1.0, "text": "a"}, "text_id is missing or not an integer"),
        ({"text_id": 1}, "text is missing or blank"),
        ({"text_id": 1, "text": "  "}, "text is missing or blank"),
        ({"text_id": 1, "text": "a", "image_ids": 3}, "image_ids is not a list of integers"),
        ({"text_id": 1, "text": "a", "image_ids": ["3"]}, "image_ids is not a list of integers"),
        ({"text_id": 5, "text": "a"}, "text_id 5 occurs twice"),
        ([1], "not a JSON object"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("   ", "blank"),
    ],
)
def test_a_malformed_query_is_refused_with_its_number(row, reason: str, tmp_path: Path) -> None:
    malformed: Malformed = []
    file = write(tmp_path / "q.jsonl", {"text_id": 5, "text": "b"}, row)
    assert [query.id for query in muge.read_queries(file, malformed)] == [5]
    ((number, found),) = refused(malformed)
    assert number == 2
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"image_ids": TEN}, "query_id is missing"),
        ({"text_id": 1}, "image_ids is not a list of integers"),
        ({"text_id": 1, "image_ids": TEN[:9]}, "image_ids has 9 ids, 9 of them different; expected 10 different ids"),
        ({"text_id": 1, "image_ids": [1, *TEN[:9]]}, "image_ids has 10 ids, 9 of them different"),
        ({"query_id": 1, "item_ids": [*TEN, 11]}, "item_ids has 11 ids"),
        ({"query_id": 1, "item_ids": [*TEN[:9], "x"]}, "item_ids is not a list of integers"),
        ({"query_id": 5, "item_ids": TEN}, "query_id 5 occurs twice"),
    ],
)
def test_a_malformed_prediction_is_refused_with_its_number(row, reason: str, tmp_path: Path) -> None:
    malformed: Malformed = []
    file = write(tmp_path / "p.jsonl", {"text_id": 5, "image_ids": TEN}, row)
    assert muge.read_predictions(file, malformed) == {5: tuple(TEN)}
    ((number, found),) = refused(malformed)
    assert (number, found[: len(reason)]) == (2, reason)


def test_captions_are_texts_or_lists_of_texts_by_text_or_integer_ids(tmp_path: Path) -> None:
    malformed: Malformed = []
    file = write(
        tmp_path / "c.jsonl",
        {"image_id": "a", "text": ["x", "y"]},
        {"image_id": 7, "text": "z"},
        {"image_id": "a", "text": "again"},
        {"image_id": "b", "text": []},
        {"image_id": None, "text": "z"},
    )
    assert muge.read_captions(file, malformed) == {"a": ("x", "y"), "7": ("z",)}
    assert [number for number, _ in refused(malformed)] == [3, 4, 5]


@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_line_of_any_file_is_read_or_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "any"
    file.write_bytes(content)
    with file.open("rb") as stream:
        lines = len(list(stream))
    for read in (muge.read_queries, muge.read_predictions, muge.read_captions, muge.read_pictures):
        malformed: Malformed = []
        found = len(list(read(file, malformed)))
        assert found + len(malformed) == lines
        assert [one.number for one in malformed] == sorted({one.number for one in malformed})


@given(
    ids=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), unique=True, max_size=4),
    keys=st.sampled_from([TEXT_KEYS, QUERY_KEYS]),
    text=st.text(min_size=1).filter(str.strip),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_written_predictions_are_read_again_and_are_queries_of_the_same_form(ids, keys, text, tmp_path: Path) -> None:
    queries = [Query(one, text, (), keys) for one in ids]
    ranked = {one: [position * 10 + digit for digit in range(10)] for position, one in enumerate(ids)}
    file = tmp_path / "p.jsonl"
    muge.write_predictions(file, queries, ranked)
    malformed: Malformed = []
    assert muge.read_predictions(file, malformed) == {one: tuple(images) for one, images in ranked.items()}
    assert [(query.id, query.text, query.keys) for query in muge.read_queries(file, malformed)] == [
        (query.id, query.text, query.keys) for query in queries
    ]
    assert malformed == []


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    malformed: Malformed = []
    (tmp_path / "q").write_text('\ufeff{"text_id": 1, "text": "a"}\n', encoding="utf-8")
    assert len(muge.read_queries(tmp_path / "q", malformed)) == 1


def test_files_have_the_prefix_of_their_task_or_none(tmp_path: Path) -> None:
    assert muge.find_file(tmp_path, "valid", PICTURES) is None
    with pytest.raises(NotFoundError, match=r"no valid_texts.jsonl or valid_queries.jsonl; expected the files of MUGE"):
        muge.require_file(tmp_path, "valid", QUERIES)
    for names, name in (
        (PICTURES, "MR_valid_imgs.tsv"),
        (QUERIES, "valid_queries.jsonl"),
        (CAPTIONS, "IC_valid.jsonl"),
    ):
        (tmp_path / name).write_text("")
        assert muge.require_file(tmp_path, "valid", names).name == name


def test_an_error_names_the_first_malformed_lines(tmp_path: Path) -> None:
    malformed: Malformed = []
    muge.read_queries(write(tmp_path / "q.jsonl", *["{"] * 8), malformed)
    with pytest.raises(InvalidInputError) as error:
        require_well_formed(malformed)
    assert f"line {SHOWN}: not JSON; and 3 more" in str(error.value)
    require_well_formed([])
