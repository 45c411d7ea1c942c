"""The LMDB store: the suite of every store, a map that grows, processes that start, end and are killed."""

import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feature_repo.errors import UnavailableError, VitrineError
from feature_repo.files import lmdb_environment
from feature_repo.online import lmdb_store
from feature_repo.online.lmdb_store import LMDBStore
from tests.feature_repo.online.store_suite import StoreSuite, make_row


class TestLMDBStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LMDBStore:
        monkeypatch.setattr(lmdb_store, "ROWS_PER_COMMIT", 3)
        monkeypatch.setattr(lmdb_store, "KEYS_PER_STEP", 3)
        return LMDBStore(tmp_path, create=True)

    def get_raw(self, store: LMDBStore, key: bytes) -> bytes | None:
        with lmdb_environment._shared[store._path]._environment.begin() as transaction:
            return transaction.get(key)

    def put_raw(self, store: LMDBStore, key: bytes, value: bytes) -> None:
        with lmdb_environment._shared[store._path]._environment.begin(write=True) as transaction:
            transaction.put(key, value)


def test_a_scan_continues_after_the_last_key_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "KEYS_PER_STEP", 3)
    store = LMDBStore(tmp_path, create=True)
    keys = [b"a%02d" % i for i in range(10)] + [b"a01\0", b"b", b"Z"]
    store.write(keys, [make_row(1)] * len(keys), 0)
    steps = list(store.scan_keys(b"a"))
    assert [key for step in steps for key in step] == sorted(key for key in keys if key.startswith(b"a"))
    assert max(map(len, steps)) == 3


def test_the_map_grows_while_threads_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_environment, "FIRST_MAP_SIZE", 1 << 16)
    store = LMDBStore(tmp_path, create=True)
    store.write([b"k"], [make_row(1)], 0)
    stop = threading.Event()
    unexpected: list[object] = []

    def read() -> None:
        while not stop.is_set():
            values = store.read([[b"k"]])
            if values != [[make_row(1)]]:
                unexpected.append(values)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(20):
        store.write([b"%d-%d" % (i, j) for j in range(200)], [make_row(j) + b"\0" * 400 for j in range(200)], 0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not unexpected
    assert (tmp_path / "data.mdb").stat().st_size > 1 << 20


def _write_much(path: Path) -> None:
    store = LMDBStore(path, create=True)
    store.write([b"%d" % i for i in range(3000)], [make_row(i) + b"\0" * 400 for i in range(3000)], 0)


def test_a_map_that_another_process_grew_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_environment, "FIRST_MAP_SIZE", 1 << 18)
    store = LMDBStore(tmp_path, create=True)
    store.write([b"k"], [make_row(1)], 0)
    for start_method in ("fork", "spawn"):
        process = multiprocessing.get_context(start_method).Process(target=_write_much, args=(tmp_path,))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert store.read([[b"k", b"7"]])[0][0] == make_row(1)
        assert store.write([b"more"], [make_row(1)], 0) == 1


def _write_until_killed(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    store = LMDBStore(path, create=True)
    for event in range(1_000_000):
        store.write([b"%d" % i for i in range(50)], [make_row(event)] * 50, 0)
        if event == 3:
            ready.set()


def test_a_killed_writer_leaves_only_complete_commits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        ready = context.Event()
        process = context.Process(target=_write_until_killed, args=(tmp_path, ready))
        process.start()
        ready.wait()
        process.kill()
        process.join()
        rows = LMDBStore(tmp_path, create=False).read([[b"%d" % i for i in range(50)]])[0]
        assert len(set(rows)) == 1, "all rows are of one commit"
        assert rows[0] is not None


def _fill_a_small_disk(path: Path, results: "multiprocessing.Queue[tuple[str, bool]]") -> None:
    store = LMDBStore(path, create=True)
    store.write([b"k"], [make_row(1)], 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
    try:
        for i in range(100):
            store.write([b"%d-%d" % (i, j) for j in range(100)], [make_row(1) + b"\0" * 400] * 100, 0)
    except VitrineError as error:
        results.put((str(error), store.read([[b"k"]]) == [[make_row(1)]]))


def test_a_full_disk_raises_one_clear_error_and_keeps_stored_rows(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[str, bool]] = context.Queue()
    process = context.Process(target=_fill_a_small_disk, args=(tmp_path, results))
    process.start()
    message, still_readable = results.get(timeout=20)
    process.join()
    assert f"LMDB at {tmp_path}" in message
    assert "free space" in message
    assert still_readable


def test_two_spellings_of_a_path_share_one_environment(tmp_path: Path) -> None:
    first, second = LMDBStore(tmp_path, create=True), LMDBStore(tmp_path / "x" / "..", create=True)
    first.write([b"k"], [make_row(1)], 0)
    assert second.read([[b"k"]]) == [[make_row(1)]]


def test_a_deleted_store_is_created_again_only_with_create(tmp_path: Path) -> None:
    path = tmp_path / "online"
    store = LMDBStore(path, create=True)
    store.write([b"k"], [make_row(1)], 0)
    reader = LMDBStore(path, create=False)
    shutil.rmtree(path)
    for _ in range(2):
        with pytest.raises(VitrineError, match=r"no online store at .*run `feast apply`"):
            reader.read([[b"k"]])
        assert not path.exists()
    path.mkdir()
    with pytest.raises(VitrineError, match="no online store at"):
        reader.read([[b"k"]])
    assert not list(path.iterdir())
    assert store.read([[b"k"]]) == reader.read([[b"k"]]) == [[None]]


def test_opening_a_missing_or_foreign_file_names_the_repair(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match=r"no online store at .*run `feast apply`"):
        LMDBStore(tmp_path / "nothing", create=False)
    (tmp_path / "data.mdb").write_bytes(b"no LMDB file" * 1000)
    with pytest.raises(VitrineError, match=r"LMDB at .*the file is damaged or is not an LMDB file"):
        LMDBStore(tmp_path, create=False)


_READER = """
import sys
from pathlib import Path
from feature_repo.errors import VitrineError
from feature_repo.online.lmdb_store import LMDBStore
try:
    store = LMDBStore(Path(sys.argv[1]), create=False)
    print(sum(row is not None for row in store.read([[b"%05d" % i for i in range(3000)]])[0]))
except VitrineError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", [1, 100, 4096, 700_000])
def test_a_truncated_file_is_refused_and_kills_no_reader(tmp_path: Path, missing: int) -> None:
    store = LMDBStore(tmp_path / "whole", create=True)
    store.write([b"%05d" % i for i in range(3000)], [make_row(1) + b"\1" * 400] * 3000, 0)
    whole = (tmp_path / "whole" / "data.mdb").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "data.mdb").write_bytes(whole[:-missing])
    done = subprocess.run(
        [sys.executable, "-c", _READER, tmp_path / "cut"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"the reader exited with {done.returncode}: {done.stderr}"
    assert f"LMDB at {tmp_path / 'cut'}" in done.stdout
    assert "data.mdb is truncated" in done.stdout
    assert done.stdout.count("\n") == 1


def test_an_intact_file_whose_last_pages_were_never_written_is_read(tmp_path: Path) -> None:
    """A commit that deletes allocates pages at the end and frees them: LMDB counts them without writing them."""
    generator, stored, keys = random.Random(13), set[bytes](), [b"%05d" % i for i in range(3000)]
    store = LMDBStore(tmp_path, create=True)
    for _ in range(40):
        new = generator.sample(keys, generator.randrange(1, 400))
        store.write(new, [make_row(1) + b"\0" * generator.choice([40, 300, 1300]) for _ in new], 0)
        stored |= set(new)
        deleted = generator.sample(sorted(stored), generator.randrange(1, len(stored)))
        store.delete(deleted)
        stored -= set(deleted)
        environment = lmdb_environment._shared[tmp_path]._environment
        expected_size = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if (tmp_path / "data.mdb").stat().st_size < expected_size:
            break
    else:
        pytest.fail("no file was shorter than its pages")
    done = subprocess.run([sys.executable, "-c", _READER, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(stored)}\n", done.stderr


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_store_that_may_not_be_written_is_read_and_refuses_writes(public_folder: Path) -> None:
    folder = public_folder / "online"
    LMDBStore(folder, create=True).compare_and_swap(b"key", None, b"value")
    for path, mode in ((folder / "data.mdb", 0o444), (folder / "lock.mdb", 0o444), (folder, 0o555)):
        path.chmod(mode)
    process = os.fork()
    if not process:  # a child that is not root, for whom permissions do not count
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(65_534)
            store = LMDBStore(folder, create=False)
            assert store.read([[b"key", b"none"]]) == [[b"value", None]]
            with pytest.raises(UnavailableError, match="Check the disk's free space and the folder's permissions"):
                store.compare_and_swap(b"key", b"value", None)
            assert store.get(b"key") == b"value"
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    folder.chmod(0o755)
