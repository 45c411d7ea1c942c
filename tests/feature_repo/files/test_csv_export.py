"""CSV for spreadsheets: no text becomes a formula, and every text is read back as it was."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.files.csv_export import restore_text, write_csv

TEXTS = ["=1+1", "+a", "-a", "@a", " =1", "'=1", "''@a", "'", "'a", "-5", "+1.5e3", "'-5", "plain", "", "\t=1"]


def write_and_read(folder: Path, texts: list[str]) -> list[str]:
    write_csv(pa.table({"text": pa.array(texts, pa.string()), "row": range(len(texts))}), folder / "texts.csv")
    with (folder / "texts.csv").open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


def test_no_text_is_a_formula_unless_it_is_a_number(tmp_path: Path) -> None:
    written = write_and_read(tmp_path, TEXTS)
    assert [text for text in written if text.strip()[:1] in tuple("=+-@")] == ["-5", "+1.5e3"]


def test_texts_are_restored(tmp_path: Path) -> None:
    assert [restore_text(text) for text in write_and_read(tmp_path, TEXTS)] == TEXTS


@given(st.lists(st.text(alphabet="'=+-@ a1.\t", max_size=6), min_size=1, max_size=20))
def test_any_text_is_restored(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    assert [restore_text(text) for text in write_and_read(tmp_path_factory.mktemp("csv"), texts)] == texts
