"""`produce captions --learn`: labels from the captions that merchants edited."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, UsageError, VitrineError
from producers.captions.edits import EditsSummary, learn_labels
from producers.tags.labels import check_labels, list_tag_values, read_labels
from tests.deployments import run_main
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WORDS = {
    "child_age": {"1-3y": ["1-3岁"], "3-6y": ["3-6岁", "幼儿园"]},
    "colour": {"red": ["红色"], "blue": ["蓝色"]},
    "claim": {"free shipping": ["包邮"]},
}
EDIT = {"product_id": "a", "caption": "1-3岁红色裙子", "edited_caption": "1-3岁红色裙子", "at": "2026-05-01T00:00:00Z"}


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    store = open_deployment(tmp_path)
    ingest(store, *({"product_id": product, "image": None} for product in "abc"))
    return store


def learn(store: Settings, *edits: dict, labels: list[dict] | None = None) -> tuple[EditsSummary, dict]:
    folder = store.file.parent
    pq.write_table(pa.Table.from_pylist([EDIT | edit for edit in edits]), folder / "edits.parquet")
    if labels is not None:
        pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    summary = learn_labels(
        store,
        folder / "edits.parquet",
        WORDS,
        labels=None if labels is None else folder / "labels.parquet",
        output=folder / "learned.parquet",
        now=NOW,
    )
    rows = read_labels(folder / "learned.parquet").to_pylist()
    return summary, {(row["product_id"], row["tag"]): row for row in rows}


def test_the_value_that_an_edited_caption_states_becomes_a_label(store: Settings) -> None:
    labels = [
        {"product_id": "a", "tag": "child_age", "value": "1-3y", "group": "g"},
        {"product_id": "a", "tag": "colour", "value": "red", "group": "g"},
        {"product_id": "b", "tag": "colour", "value": "red", "group": "h"},
    ]
    summary, rows = learn(
        store,
        {"edited_caption": "幼儿园红色裙子包邮"},
        {"product_id": "c", "edited_caption": "蓝色裙子"},
        labels=labels,
    )
    values = {key: row["value"] for key, row in rows.items()}
    assert values == {
        ("a", "child_age"): "3-6y",
        ("a", "colour"): "red",
        ("b", "colour"): "red",
        ("c", "colour"): "blue",
    }
    assert rows["a", "child_age"]["group"] == "g"
    assert rows["c", "colour"]["group"] is None
    assert (summary.changed, summary.confirmed, summary.added, summary.not_tags) == (1, 1, 1, 1)
    assert summary.outcomes == {
        "child_age": {"changed": 1, "withdrawn": 1},
        "colour": {"kept": 1, "changed": 1},
        "claim": {"added": 1},
    }
    assert "child_age: 1 changed, 1 withdrawn" in str(summary)


def test_labels_that_repeat_or_contradict_an_earlier_one_stay_for_produce_tags_to_refuse(store: Settings) -> None:
    labels = [
        {"product_id": "b", "tag": "colour", "value": "red", "group": "h"},
        {"product_id": "b", "tag": "colour", "value": "blue", "group": "h"},
        {"product_id": "a", "tag": "colour", "value": "red", "group": "g"},
        {"product_id": "a", "tag": "colour", "value": "blue", "group": None},
    ]
    summary, rows = learn(store, {"edited_caption": "红色裙子"}, labels=labels)
    assert (summary.labels, summary.confirmed, summary.changed) == (3, 1, 0)
    assert rows["a", "colour"] == {"product_id": "a", "tag": "colour", "value": "red", "group": "g"}
    valid, refused = check_labels(read_labels(summary.output), {"a", "b"}, {})
    assert valid["value"].to_pylist() == ["red", "red"]
    assert [(row.row_id, row.reason) for row in refused] == [("b", "contradicts an earlier label")]


def test_without_labels_only_tags_with_columns_are_learned(store: Settings) -> None:
    summary, rows = learn(store, {})
    assert {key: row["value"] for key, row in rows.items()} == {("a", "child_age"): "1-3y"}
    assert summary.not_tags == 1
    assert rows["a", "child_age"]["value"] in list_tag_values(store.age_scale)["child_age"]


def test_several_values_of_one_attribute_give_no_label(store: Settings) -> None:
    both = {"edited_caption": "1-3岁3-6岁裙子"}
    summary, rows = learn(store, both, {"product_id": "b"})
    assert list(rows) == [("b", "child_age")]
    assert summary.ambiguous == 1
    with pytest.raises(InvalidInputError, match="no label can be learned: 1 edited attributes have several values"):
        learn(store, both)


def test_the_latest_edit_of_a_product_counts_whatever_the_order_of_the_rows(store: Settings) -> None:
    late = {"edited_caption": "3-6岁", "at": "2026-05-03T00:00:00Z"}
    for edits in ([late, {}], [{}, late]):
        summary, rows = learn(store, *edits)
        assert (summary.edits, summary.superseded) == (1, 1)
        assert rows["a", "child_age"]["value"] == "3-6y"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"product_id": "z"}, "1 of 2 edits cannot be used; z, column `product_id`: not a product of the catalogue"),
        ({"product_id": " "}, "row 2, column `product_id`: no product_id"),
        ({"edited_caption": " "}, "column `edited_caption`: no edited caption"),
        ({"caption": None}, "column `caption`: no caption"),
        ({"at": "yesterday"}, "column `at`: timestamp cannot be parsed"),
        ({"at": "2026-05-01"}, "column `at`: timestamp has no time zone"),
        ({"at": "2027-01-01T00:00:00Z"}, "column `at`: timestamp is in the future"),
    ],
)
def test_a_file_with_an_unusable_edit_is_refused_with_one_line(store: Settings, fault: dict, message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        learn(store, {}, fault)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (store.file.parent / "learned.parquet").exists()


def test_a_file_without_a_column_or_without_rows_and_an_output_that_is_an_input_are_refused(
    store: Settings, tmp_path: Path
) -> None:
    edits, output = tmp_path / "edits.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.Table.from_pylist([{"product_id": "a", "caption": "x", "at": NOW}]), edits)
    with pytest.raises(VitrineError, match="edited_caption"):
        learn_labels(store, edits, WORDS, labels=None, output=output, now=NOW)
    pq.write_table(pa.Table.from_pylist([EDIT]).slice(0, 0), edits)
    with pytest.raises(VitrineError, match="the table is empty"):
        learn_labels(store, edits, WORDS, labels=None, output=output, now=NOW)
    for other in (edits, tmp_path / "out.csv"):
        with pytest.raises(UsageError, match="--output is"):
            learn_labels(store, edits, WORDS, labels=None, output=other, now=NOW)


def test_the_command_writes_labels_and_refuses_options_that_do_not_fit(store: Settings, tmp_path: Path) -> None:
    words, edits, output = tmp_path / "words.csv", tmp_path / "edits.parquet", tmp_path / "learned.parquet"
    words.write_text("attribute,value,word\nchild_age,3-6y,幼儿园\n")
    pq.write_table(pa.Table.from_pylist([EDIT | {"edited_caption": "幼儿园裙子"}]), edits)
    arguments = ["captions", "--words", str(words), "--learn", str(edits), "--store", str(store.file)]
    done = run_main("produce", *arguments, "--output", str(output))
    assert (done.returncode, read_labels(output)["value"].to_pylist()) == (0, ["3-6y"])
    for wrong, message in (
        (arguments, "--learn needs --output"),
        (["captions", "--words", str(words), "--encoder", "x", "--language", "fr"], "--language is `fr`"),
        (["captions", "--words", str(words), "--encoder", "x", "--category-style", "toys"], "expected CATEGORY=STYLE"),
        (["captions", "--words", str(words)], "--encoder is missing"),
        (["captions", "--words", str(words), "--encoder", "x", "--output", "y"], "belong to --learn"),
        (["captions", "--encoder", "x"], "--words is missing"),
    ):
        refused = run_main("produce", *wrong, *([] if "--store" in wrong else ["--store", str(store.file)]))
        assert refused.returncode == 2
        assert message in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("attribute,value\ncolour,red\n", "word"),
        ("attribute,value,word\ncolour,red,红\ncolour,,蓝\n", "row 2 has no value"),
        ("attribute,value,word\n", "the table is empty"),
    ],
)
def test_a_damaged_table_of_words_is_refused(store: Settings, tmp_path: Path, content: str, message: str) -> None:
    words = tmp_path / "words.csv"
    words.write_text(content)
    done = run_main("produce", "captions", "--words", str(words), "--encoder", "x", "--store", str(store.file))
    assert done.returncode == 1
    assert re.search(message, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
