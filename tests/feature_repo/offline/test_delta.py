"""Delta tables on disk."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem

from feature_repo.offline import delta, retention

ROWS = pa.table({"product_id": ["梦 1", "b"], "price": [1.5, None]})


def test_a_table_in_a_folder_with_any_name_reads_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "商店 50% #1?" / "table"
    delta.append(path, ROWS)
    assert delta.read(path).equals(ROWS)
    assert delta.read(path, ["price"]).column_names == ["price"]


def test_arrow_reads_files_without_calling_python(tmp_path: Path) -> None:
    # Such a thread, still at work when the program ends, aborts it.
    delta.append(tmp_path / "table", ROWS)
    opened = delta.open_dataset(tmp_path / "table").filesystem
    assert isinstance(opened.base_fs, LocalFileSystem)


def test_added_rows_are_found_after_a_vacuum_removed_the_old_files(tmp_path: Path) -> None:
    path = tmp_path / "table"
    seen = [delta.append(path, ROWS) for _ in range(2)][-1]
    retention.compact(path)
    retention.vacuum(path, grace=timedelta(0))
    delta.append(path, ROWS.slice(0, 1))
    assert delta.open_added_rows(path, delta.open_table(path), seen).count_rows() == 5
    assert delta.open_added_rows(path, delta.open_table(path), seen + 1).count_rows() == 1


def test_an_append_with_an_old_transaction_version_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table"
    assert delta.txn_version(path, "embeddings a") == 0
    assert delta.append_if_version(path, ROWS, "embeddings a", 0, {"catalogue": 7}) == 1
    with pytest.raises(delta.CommitConflictError):
        delta.append_if_version(path, ROWS, "embeddings a", 0)
    assert delta.append_if_version(path, ROWS, "embeddings b", 0) == 1
    assert delta.append_if_version(path, ROWS, "embeddings a", delta.txn_version(path, "embeddings a")) == 2
    assert delta.read(path).num_rows == 3 * ROWS.num_rows
    assert (delta.txn_marker(path, "catalogue"), delta.txn_marker(path, "other")) == (7, None)


def test_of_concurrent_writers_one_commits_and_the_others_add_what_is_still_missing(
    tmp_path: Path,
) -> None:
    path, wanted, gate = tmp_path / "table", [f"p{number}" for number in range(12)], threading.Barrier(4)

    def writer(_: int) -> int:
        lost = 0
        gate.wait()
        while True:
            turn = delta.txn_version(path, "embeddings a")
            held = delta.read(path)["product_id"].to_pylist() if delta.exists(path) else []
            left = [product for product in wanted if product not in held]
            if not left:
                return lost
            try:
                delta.append_if_version(path, pa.table({"product_id": left[:3]}), "embeddings a", turn)
            except delta.CommitConflictError:
                lost += 1

    with ThreadPoolExecutor(4) as pool:
        lost = sum(pool.map(writer, range(4)))
    assert sorted(delta.read(path)["product_id"].to_pylist()) == sorted(wanted)
    assert lost > 0


def test_concurrent_writers_that_create_one_table_all_succeed(tmp_path: Path) -> None:
    gate = threading.Barrier(4, timeout=20)

    def write(number: int) -> None:
        rows = pa.table({"writer": [number]})
        for table in range(10):
            gate.wait()
            change = delta.overwrite if number == 0 else delta.append
            change(tmp_path / f"table {table}", rows)
            gate.wait()
            with contextlib.suppress(delta.CommitConflictError):
                delta.append_if_version(tmp_path / f"table in turn {table}", rows, "series", 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    for table in range(10):
        assert 0 in delta.read(tmp_path / f"table {table}")["writer"].to_pylist()
        assert delta.read(tmp_path / f"table in turn {table}").num_rows == 1


def test_lists_of_a_table_with_vectors_have_no_dictionary_and_plain_columns_have_one(
    tmp_path: Path,
) -> None:
    vectors = pa.array([[0.5, -1.0], None], pa.list_(pa.float32()))
    products = pa.table({"product_id": ["a", "b"], "vector": vectors, "event_timestamp": pa.array([1, 2])})
    histories = pa.table({"user_id": ["a", "b"], "vector": vectors, "recent": [["p", "q"], ["p"]]})
    delta.append(tmp_path / "products", products)
    delta.append_if_version(tmp_path / "histories", histories, "s", 0)
    assert delta.read(tmp_path / "products").equals(products)
    assert written(tmp_path / "products") == {"product_id": True, "vector": False, "event_timestamp": True}
    assert written(tmp_path / "histories") == {"user_id": True, "vector": False, "recent": False}
    delta.append(tmp_path / "names", histories.drop_columns(["vector"]))
    assert written(tmp_path / "names") == {"user_id": True, "recent": True}
    # What files hold is known without opening them.
    stated = DeltaTable(tmp_path / "products").get_add_actions(flatten=True)
    assert pa.table(stated)["max.event_timestamp"].to_pylist() == [2]


def written(path: Path) -> dict[str, bool]:
    """Whether each column of a table's one file has a dictionary."""
    (file,) = path.glob("*.parquet")
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {column.path_in_schema.split(".")[0]: column.has_dictionary_page for column in columns}
