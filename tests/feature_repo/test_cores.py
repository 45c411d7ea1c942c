"""The number of cores that a process may use: its affinity mask, and the limits of containers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_repo.cores import count_cores, map_on_all_cores


def make_groups(folder: Path, files: dict[str, str], membership: str) -> tuple[Path, Path]:
    """Write control group files, and the file that names the groups of this process."""
    for name, content in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(content)
    (folder / "self").write_text(membership)
    return folder / "cgroup", folder / "self"


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({}, "", 8),
        ({"cpu.max": "max 100000"}, "0::/", 8),
        ({"cpu.max": "250000 100000"}, "0::/", 3),
        ({"cpu.max": "20000 100000"}, "0::/", 1),
        ({"cpu.max": "1600000 100000"}, "0::/", 8),
        (
            {"cpu.max": "max 100000", "pod/cpu.max": "200000 100000", "pod/main/cpu.max": "max 100000"},
            "0::/pod/main",
            2,
        ),
        ({"cpu.max": "400000 100000", "pod/cpu.max": "100000 100000"}, "0::/another", 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n0::/\n", 8),
        (
            {"cpu/pod/cpu.cfs_quota_us": "150000\n", "cpu/pod/cpu.cfs_period_us": "50000\n"},
            "9:name=systemd:/x\n3:cpuacct,cpu:/pod/main\n2:cpuset:/y\n",
            3,
        ),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "0"}, "3:cpu:/", 8),
        ({"cpu.max": "not a number"}, "0::/\ngarbage", 8),
    ],
)
def test_a_container_limits_the_cores(
    files: dict[str, str], membership: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert count_cores(*make_groups(tmp_path, files, membership)) == cores


def test_an_affinity_mask_limits_the_cores_whatever_the_machine_has(tmp_path: Path) -> None:
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert count_cores(tmp_path, tmp_path / "none") == count_cores() == 1
        assert list(map_on_all_cores(abs, [-1, 2, -3])) == [1, 2, 3]
    finally:
        os.sched_setaffinity(0, mask)
    assert count_cores(tmp_path, tmp_path / "none") == len(mask)


def test_a_system_without_control_groups_and_masks_has_all_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert count_cores(tmp_path, tmp_path / "none") == (os.cpu_count() or 1)


POOLS = """
import json, os, sys
from pathlib import Path
os.sched_setaffinity(0, set(map(int, sys.argv[1].split(","))))
from feature_repo.cores import limit_thread_pools
limit_thread_pools(Path(sys.argv[2]), Path(sys.argv[3]))
import faiss, lightgbm, numpy, pyarrow, torch
from threadpoolctl import threadpool_info
pools = {pool["prefix"] + pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
pools |= {"torch": torch.get_num_threads(), "faiss": faiss.omp_get_max_threads(), "arrow": pyarrow.cpu_count()}
print(json.dumps(pools))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity masks and control groups are Linux's")
@pytest.mark.parametrize("limit", ["quota", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mask", "user"))])
def test_the_thread_pools_of_libraries_follow_the_limits_and_the_user(limit: str, tmp_path: Path) -> None:
    mask = sorted(os.sched_getaffinity(0))
    if len(mask) < 2 and limit != "mask":
        pytest.skip("a machine with one core")
    quota = {"mask": "max 100000", "quota": "90000 100000", "user": "90000 100000"}[limit]
    groups, membership = make_groups(tmp_path, {"cpu.max": quota}, "0::/")
    cores = ",".join(map(str, mask[:1] if limit == "mask" else mask[:2]))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", POOLS, cores, str(groups), str(membership)],
        check=True,
        capture_output=True,
        text=True,
        env=environment | ({"OMP_NUM_THREADS": "2"} if limit == "user" else {}),
    )
    pools = json.loads(done.stdout)
    assert len(pools) > 4
    assert set(pools.values()) == {2 if limit == "user" else 1}


@pytest.mark.parametrize("command", ["producers", "consumers", "producers.encoders.run"])
def test_every_command_limits_the_thread_pools_before_it_imports_libraries_that_have_some(command: str) -> None:
    program = f"""
import runpy, sys
from feature_repo import cores
def limit_thread_pools():
    print([name for name in ("torch", "faiss", "lightgbm") if name in sys.modules])
    sys.exit()
cores.limit_thread_pools = limit_thread_pools
sys.argv = ["run", "--encoder", "x", "--catalogue", "x", "--output", "x"]
runpy.run_module({command!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
