"""Files that are written block by block belong to a table, or are removed; those of a commit are never removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from feature_repo.offline import delta
from feature_repo.offline.delta_blocks import append_blocks_if_version

BLOCKS = [pa.table({"product_id": [name], "image": [b"picture"]}) for name in ("a", "b")]


def append(path: Path) -> int:
    return append_blocks_if_version(path, BLOCKS[0].schema, BLOCKS, "catalogue", delta.txn_version(path, "catalogue"))


def fail_after_commit(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the next commit be made, and raise an error then."""
    commit: Callable[..., None] = DeltaTable.create_write_transaction

    def commit_and_raise(*arguments: Any, **options: Any) -> None:
        monkeypatch.undo()
        commit(*arguments, **options)
        raise error

    monkeypatch.setattr(DeltaTable, "create_write_transaction", commit_and_raise)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CommitFailedError("the reply was lost")])
def test_files_of_a_commit_that_was_made_stay_whatever_is_raised_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "table"
    fail_after_commit(monkeypatch, error)
    expected = delta.CommitConflictError if isinstance(error, CommitFailedError) else type(error)
    with pytest.raises(expected):
        append(path)
    assert sorted(delta.read(path, ["product_id"])["product_id"].to_pylist()) == ["a", "b"]
    append(path)
    assert delta.open_dataset(path).count_rows() == 4


def test_files_of_a_commit_that_lost_to_another_writer_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "table"
    append(path)
    with pytest.raises(delta.CommitConflictError):
        append_blocks_if_version(path, BLOCKS[0].schema, BLOCKS, "catalogue", 0)
    assert len(list(path.glob("*.parquet"))) == 1
