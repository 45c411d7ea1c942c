"""`make demo` deletes nothing but what it made itself."""

import os
import subprocess
from pathlib import Path

import pytest

from feature_repo import config
from tests.deployments import ROOT, clean_environment

DEMO = ROOT / "demo"


def check_demo(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the step of `make demo` that comes before it deletes anything."""
    return subprocess.run(
        ["make", "--silent", "--file", str(ROOT / "Makefile"), "check-demo"],
        cwd=folder,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["feature_store.yaml", "feature_store.redis.yaml", "feature_store.demo.yaml"])
def test_only_the_demos_store_lies_in_the_folder_that_the_demo_deletes(name: str) -> None:
    file = ROOT / "feature_repo" / name
    raw = config.load(file).raw
    paths = [raw["offline_store"]["path"], raw["online_store"].get("path"), raw["registry"]["path"]]
    on_disk = [path.removeprefix("sqlite:///") for path in paths if path and "$" not in path]
    is_in_demo = [Path(os.path.normpath(file.parent / path)).is_relative_to(DEMO) for path in on_disk]
    assert is_in_demo == [name == "feature_store.demo.yaml"] * len(on_disk)


def test_every_step_of_the_demo_uses_the_demos_store() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert f"demo: export {config.ENVIRONMENT_VARIABLE} := $(DEMO_STORE)\n" in makefile
    assert "DEMO_STORE := $(CURDIR)/feature_repo/feature_store.demo.yaml\n" in makefile
    assert "demo: check-demo " in makefile


def test_the_demo_refuses_where_another_store_is_named(tmp_path: Path) -> None:
    done = check_demo(tmp_path, FEAST_FS_YAML_FILE_PATH="/srv/shop/feature_store.yaml")
    assert done.returncode != 0
    assert "FEAST_FS_YAML_FILE_PATH is /srv/shop/feature_store.yaml" in done.stderr


def test_the_demo_refuses_to_delete_a_folder_that_it_did_not_make(tmp_path: Path) -> None:
    assert check_demo(tmp_path).returncode == 0
    (tmp_path / "demo").mkdir()
    done = check_demo(tmp_path)
    assert done.returncode != 0
    assert "move it away" in done.stderr
    (tmp_path / "demo" / "made-by-make-demo").touch()
    assert check_demo(tmp_path).returncode == 0
