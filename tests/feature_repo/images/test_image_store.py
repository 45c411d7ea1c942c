"""Images in an LMDB: read by processes that keep it open while other processes add to it or replace it."""

import multiprocessing
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from feature_repo.content_hash import content_hash
from feature_repo.files import lmdb_environment
from feature_repo.images import image_store
from feature_repo.images.decoding import MISSING, UNREADABLE, UnusableImageError, read_bytes

CONTEXT = multiprocessing.get_context("fork")


def make_images(seed: int, count: int, size: int = 20_000) -> list[bytes]:
    generator = np.random.default_rng(seed)
    return [generator.bytes(size) for _ in range(count)]


def write_elsewhere(folder: Path, images: Sequence[bytes]) -> None:
    process = CONTEXT.Process(target=image_store.write, args=(folder, images))
    process.start()
    process.join()
    assert process.exitcode == 0


def read_all(folder: Path, images: Sequence[bytes]) -> list[bytes]:
    return [read_bytes(Path(f"lmdb:{folder}#{content_hash(image).hex()}")) for image in images]


def test_a_reader_goes_on_reading_old_and_new_images_of_an_lmdb_that_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_store, "INITIAL_MAP_BYTES", 1 << 16)
    images = make_images(0, 5)
    write_elsewhere(tmp_path, images)
    for seed in range(1, 4):
        assert read_all(tmp_path, images) == images
        more = make_images(seed, 40)
        write_elsewhere(tmp_path, more)
        images += more
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda part: read_all(tmp_path, part) == part, [images[start::4] for start in range(4)]))
    with pytest.raises(UnusableImageError, match=MISSING):
        read_bytes(Path(f"lmdb:{tmp_path}#nothing"))


def test_a_reader_follows_an_lmdb_that_is_replaced(tmp_path: Path) -> None:
    old, new = make_images(1, 3), make_images(2, 3)
    write_elsewhere(tmp_path / "pictures", old)
    assert read_all(tmp_path / "pictures", old) == old
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(UnusableImageError):
        read_all(tmp_path / "pictures", old)
    write_elsewhere(tmp_path / "pictures", new)
    assert read_all(tmp_path / "pictures", new) == new


def test_one_process_reads_and_writes_by_turns_and_under_two_spellings(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    images: list[bytes] = []
    for seed in range(3):
        more = make_images(seed, 2)
        image_store.write(tmp_path / "pictures", more)
        images += more
        assert read_all(tmp_path / "pictures", images) == read_all(tmp_path / "link", images) == images


def test_many_threads_may_read_first_at_once(tmp_path: Path) -> None:
    images = make_images(0, 4, 100)
    write_elsewhere(tmp_path, images)
    pace = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda _: read_all(tmp_path, images), range(16))) == [images] * 16
    finally:
        sys.setswitchinterval(pace)


def test_an_lmdb_whose_lock_file_cannot_be_used_is_read_without_it(tmp_path: Path) -> None:
    images = make_images(0, 2)
    write_elsewhere(tmp_path, images)
    (tmp_path / "lock.mdb").unlink()
    (tmp_path / "lock.mdb").mkdir()
    assert read_all(tmp_path, images) == images


def test_a_truncated_lmdb_makes_its_images_unreadable_and_ends_nothing(tmp_path: Path) -> None:
    images = make_images(0, 4)
    write_elsewhere(tmp_path, images)
    content = (tmp_path / "data.mdb").read_bytes()
    (tmp_path / "data.mdb").write_bytes(content[: len(content) // 2 + 1])
    with pytest.raises(UnusableImageError, match=rf"{UNREADABLE}.*truncated.*run `produce images`"):
        read_all(tmp_path, images)
    assert tmp_path not in lmdb_environment._shared
