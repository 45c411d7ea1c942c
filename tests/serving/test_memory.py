import subprocess
import sys

import pytest

ROUNDS = 50
FAULTS = f"""
import resource
from consumers import memory
memory.keep_freed()
def request():
    rows = [bytes(1000) for _ in range(2000)]
    return b"".join(rows)
request()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    request()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_what_a_request_freed_is_there_for_the_next() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) // ROUNDS < 10  # without it some 300, where glibc happens to give the heap's end back
