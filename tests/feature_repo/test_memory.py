"""`keep_freed`: freed memory is reused, without new page faults."""

import subprocess
import sys

import pytest

ROUNDS = 20
FAULTS = """
import resource
import threading
from feature_repo import memory
memory.keep_freed()
def request():
    rows = [bytes(1000) for _ in range(2000)]
    return b"".join(rows)
def batch():
    return [b"x" * (6 * 2**20) for _ in range(8)]
def again_and_again():
    {work}()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({rounds}):
        {work}()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=again_and_again)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
@pytest.mark.parametrize("work", ["request", "batch"])
def test_freed_memory_is_reused_without_page_faults(work: str) -> None:
    program = [sys.executable, "-c", FAULTS.format(work=work, rounds=ROUNDS)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    # Without it some 300 for a request, where glibc happens to give the heap's end back, and 10,000 for a batch.
    assert int(done.stdout) // ROUNDS < 10
