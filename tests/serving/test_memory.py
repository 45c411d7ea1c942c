import subprocess
import sys

import pytest

ROUNDS = 50
FAULTS = f"""
import resource, sys
from consumers import memory
if sys.argv[1] == "kept":
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
    def faults(memory: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, memory], check=True, capture_output=True, text=True)
        return int(done.stdout) // ROUNDS

    assert faults("given back") > 100
    assert faults("kept") < 10
