"""Delta tables on disk."""

from pathlib import Path

import pyarrow as pa
from pyarrow.fs import LocalFileSystem

from feature_repo.tables import delta

ROWS = pa.table({"product_id": ["梦 1", "b"], "price": [1.5, None]})


def test_a_table_in_a_folder_of_any_name_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "商店 50% #1?" / "table"
    delta.append(path, ROWS)
    assert delta.read(path).equals(ROWS)
    assert delta.read(path, ["price"]).column_names == ["price"]


def test_no_thread_of_arrows_calls_python_to_read_a_file(tmp_path: Path) -> None:
    # Such a thread, still at work when the program ends, aborts it.
    delta.append(tmp_path / "table", ROWS)
    opened = delta.dataset(tmp_path / "table").filesystem
    assert isinstance(opened.base_fs, LocalFileSystem)
