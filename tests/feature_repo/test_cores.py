"""The number of cores that a process may use: its affinity mask, and the limits of containers."""

import os
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
