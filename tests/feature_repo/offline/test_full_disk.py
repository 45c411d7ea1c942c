"""Full disks and damaged Delta tables: one clear line, and existing rows stay."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.offline.retention import forget
from tests.small_disk import no_file_longer_than

NOISE = pa.table({"number": np.random.default_rng(0).random(20_000)})
FEW = NOISE.slice(0, 10)


WAYS: dict[str, Callable[[Path], int]] = {
    "append": lambda path: delta.append(path, NOISE),
    "append in turn": lambda path: delta.append_if_version(path, NOISE, "days", delta.txn_version(path, "days")),
    "overwrite": lambda path: delta.overwrite(path, NOISE),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_write_to_a_full_disk_raises_one_line_and_leaves_the_table_unchanged(tmp_path: Path, way: str) -> None:
    path = tmp_path / "looks"
    delta.append(path, FEW)
    with no_file_longer_than(20_000), pytest.raises(VitrineError, match=r"table `looks` .* cannot be written") as said:
        WAYS[way](path)
    assert "\n" not in str(said.value)
    assert delta.read(path).equals(FEW)
    delta.append(path, NOISE)
    assert len(delta.read(path)) == len(FEW) + len(NOISE)


def test_readers_and_writers_name_a_table_whose_log_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "looks"
    delta.append(path, FEW)
    next((path / "_delta_log").glob("*0.json")).write_text("{no json")
    for work in (
        lambda: delta.read(path),
        lambda: delta.latest_version(path),
        lambda: delta.txn_version(path, "days"),
        lambda: forget(path, "number", [1]),
    ):
        with pytest.raises(VitrineError, match=r"table `looks` under .* cannot be opened") as said:
            work()
        assert "\n" not in str(said.value)
    with pytest.raises(VitrineError, match="table `looks`"):
        delta.append(path, FEW)


@pytest.mark.parametrize("length", [None, 0, 200])
def test_a_table_with_a_missing_or_truncated_file_is_named_before_anything_is_read(
    tmp_path: Path, length: int | None
) -> None:
    path = tmp_path / "looks"
    delta.append(path, FEW)
    file = next(path.glob("*.parquet"))
    if length is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:length])
    for work in (delta.read, delta.open_dataset):
        with pytest.raises(VitrineError, match=rf"table `looks` .* is damaged: its file {file.name}") as said:
            work(path)
        assert "\n" not in str(said.value)
