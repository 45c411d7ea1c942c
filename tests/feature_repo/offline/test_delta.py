"""Delta tables, on disk and in a bucket."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem

from feature_repo.errors import InvalidInputError, NotFoundError, UnavailableError
from feature_repo.location import BucketPath, Location
from feature_repo.offline import delta, delta_files, retention

ROWS = pa.table({"product_id": ["梦 1", "b"], "price": [1.5, None]})


def test_a_table_without_a_column_that_is_needed_is_named(tmp_path: Path) -> None:
    delta.append(tmp_path / "looks", pa.table({"a": [1]}))
    assert delta.open_dataset(tmp_path / "looks", ["a"]).count_rows() == 1
    with pytest.raises(NotFoundError, match=r"table `looks` under .* has no column b, c; it has \['a'\]"):
        delta.open_dataset(tmp_path / "looks", ["b", "a", "c"])


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


def test_added_rows_are_found_after_a_vacuum_removed_the_old_files(folder: Location) -> None:
    path = folder / "table"
    seen = [delta.append(path, ROWS) for _ in range(2)][-1]
    retention.compact(path)
    retention.vacuum(path, grace=timedelta(0))
    delta.append(path, ROWS.slice(0, 1))
    assert delta.open_added_rows(path, delta.open_table(path), seen).count_rows() == 5
    assert delta.open_added_rows(path, delta.open_table(path), seen + 1).count_rows() == 1


FILTERS = [
    pc.field("encoder") != "tiny@1",
    pc.field("encoder") > "tiny@1",
    pc.field("encoder") == "tiny@2",
    pc.field("hash") == b"2",
    pc.field("hash") < b"2",
    pc.field("hash").is_null(),
    pc.field("words").is_valid(),
    pc.field("id").isin(["p1", "p3", "p7"]),
    pc.field("at") > 3,
]


def forget_one(path: Location) -> None:
    retention.forget(path, "id", ["p2"])


def drop_corrected(path: Location) -> None:
    before = datetime(2030, 1, 1, tzinfo=UTC)
    assert retention.drop_corrected(path, keys=["id"], event="event", created="created", before=before) == 1


@pytest.mark.parametrize("rewrite", [forget_one, drop_corrected, retention.compact])
def test_files_that_delta_has_rewritten_are_filtered_like_any_other(tmp_path: Path, rewrite: Callable) -> None:
    check_filters(tmp_path / "table", rewrite)


def test_files_that_delta_has_rewritten_in_a_bucket_are_filtered_like_any_other(bucket: BucketPath) -> None:
    check_filters(bucket / "table", drop_corrected, FILTERS[::3])


def check_filters(path: Location, rewrite: Callable, filters: Sequence[pc.Expression] = FILTERS) -> None:
    event = pa.array([0, 1, 2, 3, 4, 4], pa.timestamp("us", "UTC"))
    rows = pa.table(
        {
            "id": ["p0", "p1", "p2", "p3", "p4", "p4"],
            "encoder": ["tiny@1", "tiny@2", "tiny@1", "tiny@2", None, "tiny@2"],
            "hash": pa.array([b"1", b"2", b"3", None, b"2", b"2"], pa.binary()),
            "words": [["q"], [], None, ["r", "s"], ["q"], ["q"]],
            "at": [0, 1, 2, 3, 4, 5],
            "event": event,
            "created": pa.array([0, 1, 2, 3, 4, 5], pa.timestamp("us", "UTC")),
        }
    )
    delta.append(path, rows)
    version = delta.append(path, rows.slice(0, 2))
    rewrite(path)
    stored = delta.read(path)
    assert stored.schema.types[:2] == [pa.string()] * 2
    added = delta.open_added_rows(path, delta.open_table(path), version)
    for where in filters:
        expected = stored.filter(where)
        assert sorted(delta.read(path, where=where)["at"].to_pylist()) == sorted(expected["at"].to_pylist()), where
        assert delta.open_dataset(path).count_rows(filter=where) == len(expected), where
        assert set(added.to_table(filter=where)["at"].to_pylist()) <= set(expected["at"].to_pylist()), where


def test_a_table_with_deletion_vectors_is_refused_in_one_line(folder: Location) -> None:
    path = folder / "table"
    delta.append(path, ROWS)
    delta.open_table(path).alter.set_table_properties({"delta.enableDeletionVectors": "true"})
    with pytest.raises(InvalidInputError, match=r"table `table` under .* deletion vectors, .* DROP FEATURE") as refused:
        delta.read(path)
    assert "\n" not in str(refused.value)


def test_a_deletion_from_an_append_only_table_names_the_property_and_not_other_writers(tmp_path: Path) -> None:
    path = tmp_path / "table"
    delta.append(path, ROWS)
    delta.open_table(path).alter.set_table_properties({"delta.appendOnly": "true"})
    for change in (lambda: retention.forget(path, "product_id", ["b"]), lambda: delta.overwrite(path, ROWS)):
        with pytest.raises(UnavailableError, match=r"is append-only, .* UNSET TBLPROPERTIES \('delta.appendOnly'\)"):
            change()
    assert delta.append(path, ROWS) == 2


@pytest.mark.parametrize("name", ["shop [1]", "shop%20one", "a|b", "a^b", "a\\b"])
def test_a_folder_that_delta_would_mistake_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "table"
    for use in (delta.exists, delta.read, delta.open_table, lambda path: delta.append(path, ROWS)):
        with pytest.raises(InvalidInputError, match="Delta Lake cannot keep a table in a folder with"):
            use(path)
    assert not list(tmp_path.iterdir())


def test_an_append_with_an_old_transaction_version_adds_nothing(folder: Location) -> None:
    path = folder / "table"
    assert delta.txn_version(path, "embeddings a") == 0
    assert delta.append_if_version(path, ROWS, "embeddings a", 0, {"catalogue": 7}) == 1
    with pytest.raises(delta.CommitConflictError):
        delta.append_if_version(path, ROWS, "embeddings a", 0)
    assert delta.append_if_version(path, ROWS, "embeddings b", 0) == 1
    assert delta.append_if_version(path, ROWS, "embeddings a", delta.txn_version(path, "embeddings a")) == 2
    assert delta.read(path).num_rows == 3 * ROWS.num_rows
    assert (delta.txn_marker(path, "catalogue"), delta.txn_marker(path, "other")) == (7, None)


def test_of_concurrent_writers_one_commits_and_the_others_add_what_is_still_missing(folder: Location) -> None:
    path, wanted, gate = folder / "table", [f"p{number}" for number in range(12)], threading.Barrier(4)

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


def test_concurrent_writers_that_create_one_table_all_succeed(folder: Location) -> None:
    gate, tables = threading.Barrier(4, timeout=60), 10 if isinstance(folder, Path) else 2

    def write(number: int) -> None:
        rows = pa.table({"writer": [number]})
        for table in range(tables):
            gate.wait()
            change = delta.overwrite if number == 0 else delta.append
            change(folder / f"table-{table}", rows)
            gate.wait()
            with contextlib.suppress(delta.CommitConflictError):
                delta.append_if_version(folder / f"in-turn-{table}", rows, "series", 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    for table in range(tables):
        assert 0 in delta.read(folder / f"table-{table}")["writer"].to_pylist()
        assert delta.read(folder / f"in-turn-{table}").num_rows == 1


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


def test_a_disk_error_names_the_path_and_not_the_network(tmp_path: Path) -> None:
    (tmp_path / "products").touch()
    with pytest.raises(UnavailableError, match=r"products cannot be read or written \(.*\); check the path") as refused:
        delta.exists(tmp_path / "products")
    assert "network" not in str(refused.value)


def test_a_file_that_cannot_be_removed_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "products"
    for _ in range(2):
        delta.append(path, ROWS)
    retention.compact(path)
    (unused, *_) = {file.name for file in path.glob("*.parquet")} - delta_files.list_files(
        delta.open_table(path)
    ).keys()
    (path / unused).unlink()
    (path / unused / "folder").mkdir(parents=True)
    (path / unused / "folder" / "file").touch()
    with pytest.raises(UnavailableError, match=r"products cannot be read or written \(.*Is a directory") as refused:
        retention.vacuum(path, grace=timedelta(0))
    assert "\n" not in str(refused.value)


def drop_first_version(path: Path) -> None:
    keys = {"keys": ["product_id"], "event": "event_timestamp", "created": "created_timestamp"}
    assert retention.drop_corrected(path, **keys, before=datetime(2026, 1, 3, tzinfo=UTC)) == 1


def forget_b(path: Path) -> None:
    assert retention.forget(path, "product_id", ["b"]) == 1


@pytest.mark.parametrize("rewrite", [retention.compact, drop_first_version, forget_b])
def test_files_that_are_written_again_have_no_dictionary_of_vectors_either(
    tmp_path: Path, rewrite: Callable[[Path], None]
) -> None:
    path, day = tmp_path / "products", datetime(2026, 1, 1, tzinfo=UTC)
    for names, created in ((["a", "b"], day), (["a"], day + timedelta(days=1))):
        times = {"event_timestamp": [day] * len(names), "created_timestamp": [created] * len(names)}
        vectors = pa.array([[0.5, -1.0]] * len(names), pa.list_(pa.float32()))
        delta.append(path, pa.table({"product_id": names, "vector": vectors, **times}))
    before = set(delta_files.list_files(delta.open_table(path)))
    rewrite(path)
    (new,) = delta_files.list_files(delta.open_table(path)).keys() - before
    assert has_dictionaries(path / new)["vector"] is False


def written(path: Path) -> dict[str, bool]:
    """Whether each column of a table's one file has a dictionary."""
    (file,) = path.glob("*.parquet")
    return has_dictionaries(file)


def has_dictionaries(file: Path) -> dict[str, bool]:
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {column.path_in_schema.split(".")[0]: column.has_dictionary_page for column in columns}
