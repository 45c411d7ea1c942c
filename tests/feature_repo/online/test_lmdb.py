"""The LMDB store on its own: bytes by key, a map that grows, processes that come and go."""

import multiprocessing
import random
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from feature_repo import lmdb_environment
from feature_repo.errors import VitrineError
from feature_repo.online import lmdb_store
from feature_repo.online.encode import encode_rows
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.row_format import Layout

EMPTY = Layout(())


def row(event: int, created: int = 0) -> bytes:
    return encode_rows(EMPTY, {}, np.array([event]), np.array([created]), {})[0]


def test_reads_in_the_order_asked_with_repeats_and_gaps(tmp_path: Path) -> None:
    store = LMDBStore(tmp_path, create=True)
    store.write([b"b", b"a"], [row(2), row(1)], 0)
    assert store.read([[b"a", b"x", b"b", b"a"], [], [b"b"]]) == [[row(1), None, row(2), row(1)], [], [row(2)]]


def test_a_newer_row_stands_whatever_the_write_order(tmp_path: Path) -> None:
    store = LMDBStore(tmp_path, create=True)
    assert store.write([b"k"], [row(5, 5)], 0) == 1
    assert store.write([b"k"], [row(4, 9)], 0) == 0
    assert store.write([b"k"], [row(5, 4)], 0) == 0
    assert store.read([[b"k"]]) == [[row(5, 5)]]
    assert store.write([b"k"], [row(5, 6)], 0) == 1
    assert store.write([b"k", b"new"], [row(-1), row(-1)], 0) == 1
    assert store.read([[b"k", b"new"]]) == [[row(5, 6), row(-1)]]


def test_a_swap_happens_only_if_nobody_came_between(tmp_path: Path) -> None:
    store = LMDBStore(tmp_path, create=True)
    assert store.compare_and_swap(b"k", None, b"1")
    assert not store.compare_and_swap(b"k", None, b"2")
    assert store.compare_and_swap(b"k", b"1", b"3")
    assert store.get(b"k") == b"3"
    assert store.compare_and_swap(b"k", b"3", None)
    assert store.get(b"k") is None


def test_a_prefix_is_dropped_and_its_neighbours_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "ROWS_PER_COMMIT", 3)
    store = LMDBStore(tmp_path, create=True)
    keys = [b"a%d" % i for i in range(10)] + [b"b", b"Z"]
    store.write(keys, [row(1)] * 12, 0)
    store.delete_prefix(b"a")
    assert store.read([keys])[0] == [None] * 10 + [row(1), row(1)]
    store.delete_prefix(b"zz")


def test_a_scan_gives_each_key_of_its_prefix_once_and_goes_on_where_a_step_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_store, "KEYS_PER_STEP", 3)
    store = LMDBStore(tmp_path, create=True)
    keys = [b"a%02d" % i for i in range(10)] + [b"a01\0", b"b", b"Z"]
    store.write(keys, [row(1)] * len(keys), 0)
    steps = list(store.scan_keys(b"a"))
    assert sorted(key for step in steps for key in step) == sorted(key for key in keys if key.startswith(b"a"))
    assert max(map(len, steps)) == 3
    assert list(store.scan_keys(b"zz")) == []


def test_the_map_grows_while_threads_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_environment, "FIRST_MAP_SIZE", 1 << 16)
    store = LMDBStore(tmp_path, create=True)
    store.write([b"k"], [row(1)], 0)
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            found = store.read([[b"k"]])
            if found != [[row(1)]]:
                wrong.append(found)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(20):
        store.write([b"%d-%d" % (i, j) for j in range(200)], [row(j) + b"\0" * 400 for j in range(200)], 0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (tmp_path / "data.mdb").stat().st_size > 1 << 20


def _write_much(path: Path) -> None:
    store = LMDBStore(path, create=True)
    store.write([b"%d" % i for i in range(3000)], [row(i) + b"\0" * 400 for i in range(3000)], 0)


def test_a_map_that_another_process_grew_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_environment, "FIRST_MAP_SIZE", 1 << 18)
    store = LMDBStore(tmp_path, create=True)
    store.write([b"k"], [row(1)], 0)
    for start_method in ("fork", "spawn"):
        process = multiprocessing.get_context(start_method).Process(target=_write_much, args=(tmp_path,))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert store.read([[b"k", b"7"]])[0][0] == row(1)
        assert store.write([b"more"], [row(1)], 0) == 1


def _write_until_killed(path: Path, ready: "multiprocessing.synchronize.Event") -> None:
    store = LMDBStore(path, create=True)
    for event in range(1_000_000):
        store.write([b"%d" % i for i in range(50)], [row(event)] * 50, 0)
        if event == 3:
            ready.set()


def test_a_killed_writer_leaves_whole_commits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        ready = context.Event()
        process = context.Process(target=_write_until_killed, args=(tmp_path, ready))
        process.start()
        ready.wait()
        process.kill()
        process.join()
        rows = LMDBStore(tmp_path, create=False).read([[b"%d" % i for i in range(50)]])[0]
        assert len(set(rows)) == 1, "one commit's rows, all of them"
        assert rows[0] is not None


def _fill_a_small_disk(path: Path, found: "multiprocessing.Queue[tuple[str, bool]]") -> None:
    store = LMDBStore(path, create=True)
    store.write([b"k"], [row(1)], 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
    try:
        for i in range(100):
            store.write([b"%d-%d" % (i, j) for j in range(100)], [row(1) + b"\0" * 400] * 100, 0)
    except VitrineError as error:
        found.put((str(error), store.read([[b"k"]]) == [[row(1)]]))


def test_a_full_disk_is_one_clear_error_and_what_was_there_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[tuple[str, bool]] = context.Queue()
    process = context.Process(target=_fill_a_small_disk, args=(tmp_path, found))
    process.start()
    message, still_readable = found.get(timeout=20)
    process.join()
    assert f"LMDB at {tmp_path}" in message
    assert "free space" in message
    assert still_readable


def test_one_environment_per_path_and_process(tmp_path: Path) -> None:
    first, second = LMDBStore(tmp_path, create=True), LMDBStore(tmp_path / "x" / "..", create=True)
    first.write([b"k"], [row(1)], 0)
    assert second.read([[b"k"]]) == [[row(1)]]


def test_a_store_that_was_deleted_is_made_anew_by_who_may_make_it_and_missed_by_others(tmp_path: Path) -> None:
    path = tmp_path / "online"
    store = LMDBStore(path, create=True)
    store.write([b"k"], [row(1)], 0)
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


def test_a_reader_of_nothing_is_told_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match=r"no online store at .*run `feast apply`"):
        LMDBStore(tmp_path / "nothing", create=False)
    (tmp_path / "data.mdb").write_bytes(b"no LMDB file" * 1000)
    with pytest.raises(VitrineError, match=r"LMDB at .*the file is damaged or is not an LMDB file"):
        LMDBStore(tmp_path, create=False)


_READS = """
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


@pytest.mark.parametrize("lost", [1, 100, 4096, 700_000])
def test_a_file_that_was_cut_off_is_refused_and_kills_no_reader(tmp_path: Path, lost: int) -> None:
    store = LMDBStore(tmp_path / "whole", create=True)
    store.write([b"%05d" % i for i in range(3000)], [row(1) + b"\1" * 400] * 3000, 0)
    whole = (tmp_path / "whole" / "data.mdb").read_bytes()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "data.mdb").write_bytes(whole[:-lost])
    done = subprocess.run([sys.executable, "-c", _READS, tmp_path / "cut"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"it died of {done.returncode}: {done.stderr}"
    assert f"LMDB at {tmp_path / 'cut'}" in done.stdout
    assert "data.mdb is truncated" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_sound_file_whose_last_pages_were_never_written_is_read(tmp_path: Path) -> None:
    """A commit that deletes takes pages at the end and gives them back: LMDB counts them, and does not write them."""
    chance, there, keys = random.Random(13), set[bytes](), [b"%05d" % i for i in range(3000)]
    store = LMDBStore(tmp_path, create=True)
    for _ in range(40):
        new = chance.sample(keys, chance.randrange(1, 400))
        store.write(new, [row(1) + b"\0" * chance.choice([40, 300, 1300]) for _ in new], 0)
        there |= set(new)
        gone = chance.sample(sorted(there), chance.randrange(1, len(there)))
        store.delete(gone)
        there -= set(gone)
        environment = lmdb_environment._shared[tmp_path]._environment
        wanted = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if (tmp_path / "data.mdb").stat().st_size < wanted:
            break
    else:
        pytest.fail("no such file came about")
    done = subprocess.run([sys.executable, "-c", _READS, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout == f"{len(there)}\n", done.stderr
