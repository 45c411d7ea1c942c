"""Memory of one batch kept for the next."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import threading
from producers.encoders import heap
if {keep}:
    heap.keep()
def batch():
    steps = [b"x" * (6 * 2**20) for _ in range(8)]
def lane():
    batch()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        batch()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=lane)
thread.start()
thread.join()
"""


def pages_taken_anew(keep: bool) -> int:
    """By twenty batches of eight steps of 6 MB, after a first one."""
    program = [sys.executable, "-c", FAULTS.format(keep=keep)]
    return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is told")
def test_a_batch_takes_no_page_anew_that_the_one_before_had() -> None:
    assert pages_taken_anew(keep=True) < 100


def test_it_may_be_asked_for_anywhere() -> None:
    from producers.encoders import heap

    heap.keep()
