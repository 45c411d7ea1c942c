"""Files with one JSON object a line: what is malformed is named with its number, and the rest is read."""

from pathlib import Path

from feature_repo.files.json_lines import Malformed, read_objects


def test_half_a_surrogate_pair_is_malformed_and_a_whole_one_is_a_character(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": "\\ud83d\\ude00"}\n{"a": ["\\ud83d"]}\n{"\\udfff": 1}\n{"a": "\\\\ud800"}\n')
    malformed: Malformed = []
    rows = [row for _, _, row in read_objects(file, malformed)]
    assert rows == [{"a": "\N{GRINNING FACE}"}, {"a": "\\ud800"}]
    assert [(one.number, one.reason[:4]) for one in malformed] == [(2, "half"), (3, "half")]
