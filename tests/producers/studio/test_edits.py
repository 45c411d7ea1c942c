"""Merchants' edits: kept, exported to what `produce captions --learn` reads, and reached by `produce forget`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import InvalidInputError, NotFoundError, UsageError
from producers import maintenance
from producers.captions.edit_log import CaptionEdit, EditLog, export_edits
from producers.captions.edits import learn_labels
from tests.producers.catalogue.shop import ingest, open_deployment

NOW = datetime(2026, 6, 1, tzinfo=UTC)
WORDS = {"category": {"dress": ["裙"], "hat": ["帽"]}}


def edit(product_id: str, caption: str = "一条裙", edited: str = "一顶帽", editor: str | None = "Ann") -> CaptionEdit:
    return CaptionEdit(product_id, caption, edited, editor, "small@1")


def test_edits_of_known_products_are_exported_and_learned_and_the_others_counted(tmp_path: Path) -> None:
    store = open_deployment(tmp_path)
    ingest(store, {"product_id": "a"}, {"product_id": "b"})
    log = EditLog(store)
    assert log.read().num_rows == 0
    for number, one in enumerate([edit("a", edited="一条裙"), edit("a"), edit("b", editor=None), edit("new")]):
        log.append(one, NOW + timedelta(minutes=number))
    assert log.read("a")["edited_caption"].to_pylist() == ["一条裙", "一顶帽"]
    summary = export_edits(store, tmp_path / "edits.parquet")
    assert (summary.edits, summary.unknown) == (3, 1)
    assert "1 of products that the catalogue does not have left out" in str(summary)
    learned = learn_labels(
        store,
        tmp_path / "edits.parquet",
        WORDS,
        labels=None,
        output=tmp_path / "labels.parquet",
        now=NOW + timedelta(days=1),
    )
    assert (learned.edits, learned.superseded) == (2, 1)
    labels = pq.read_table(tmp_path / "labels.parquet")
    assert set(zip(labels["product_id"].to_pylist(), labels["value"].to_pylist(), strict=True)) == {
        ("a", "hat"),
        ("b", "hat"),
    }


def test_forget_deletes_the_edits_of_a_product(tmp_path: Path) -> None:
    store = open_deployment(tmp_path)
    ingest(store, {"product_id": "a"}, {"product_id": "b"})
    log = EditLog(store)
    for one in ("a", "b", "a"):
        log.append(edit(one), NOW)
    assert maintenance.forget(store, products=["a"], users=[]).offline["caption_edit"] == 2
    assert log.read()["product_id"].to_pylist() == ["b"]


def test_all_edits_stay_after_a_vacuum(tmp_path: Path) -> None:
    store = open_deployment(tmp_path)
    ingest(store, {"product_id": "a"})
    for number in range(3):
        EditLog(store).append(edit("a", edited=str(number)), NOW + timedelta(minutes=number))
    list(maintenance.vacuum(store, now=NOW + timedelta(days=9_999), grace=timedelta(0)))
    assert EditLog(store).read()["edited_caption"].to_pylist() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"product_id": " "}, "product_id"),
        ({"edited": ""}, "edited_caption"),
        ({"edited": "x" * 501}, "edited_caption"),
        ({"caption": "two\nlines"}, "caption"),
        ({"editor": "x" * 61}, "editor"),
    ],
)
def test_an_unusable_edit_is_refused_in_one_line(changed: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{name}: .* printable characters$"):
        edit(**{"product_id": "a", **changed})


def test_an_export_without_usable_edits_says_so_and_writes_nothing(tmp_path: Path) -> None:
    store = open_deployment(tmp_path)
    ingest(store, {"product_id": "a"})
    with pytest.raises(NotFoundError, match="0 edits"):
        export_edits(store, tmp_path / "edits.parquet")
    with pytest.raises(UsageError, match=r"\.parquet"):
        export_edits(store, tmp_path / "edits.csv")
    assert not (tmp_path / "edits.parquet").exists()
    assert isinstance(EditLog(store).read(), pa.Table)
