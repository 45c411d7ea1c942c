"""Arrays in files: zeros at first, what is written to the map is in the file, and its space on the disk is reserved."""

from pathlib import Path

import numpy as np
import pytest

from feature_repo.files.array_file import create_array_file
from tests.small_disk import no_file_longer_than


def test_the_space_of_the_whole_array_is_reserved_before_it_is_written(tmp_path: Path) -> None:
    array = create_array_file(tmp_path / "a.npy", np.int64, (1000, 100))
    status = (tmp_path / "a.npy").stat()
    assert status.st_blocks * 512 >= status.st_size > array.nbytes
    array[7, :] = 5
    array.flush()
    assert np.load(tmp_path / "a.npy").sum() == 500


def test_too_small_a_disk_is_one_error_and_leaves_no_file(tmp_path: Path) -> None:
    with no_file_longer_than(10_000), pytest.raises(OSError, match=r"a\.npy"):
        create_array_file(tmp_path / "a.npy", np.int64, (100_000,))
    assert list(tmp_path.iterdir()) == []
