"""Rules of the architecture: which folder may import which, and what must start fast."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("feature_repo", "producers", "consumers")
STORAGE = ("feature_repo.online", "feature_repo.offline", "feature_repo.distributed", "feature_repo.stores")
FORBIDDEN = {
    "feature_repo": {"producers", "consumers"},
    "producers": {"consumers"},
    "consumers": {"producers"},
    "feature_repo/arrow": {"feast", "torch", "transformers", "deltalake", "lmdb", "redis", *STORAGE},
    "feature_repo/offline": {"feast", "torch", "transformers", "redis", "lmdb", "feature_repo.stores"},
    "feature_repo/online": {"feast", "transformers", "feature_repo.stores"},
    "feature_repo/distributed": {"feast", "torch", "transformers", "feature_repo.stores"},
    "feature_repo/features": {"feast", "transformers", "pyarrow", "feature_repo.arrow", *STORAGE},
    "producers/encoders": {"feast", "redis", "deltalake", "sqlalchemy", "lmdb"},
}


def imports_of(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_folder_imports_no_forbidden_package(folder: str) -> None:
    crossed = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in (ROOT / folder).rglob("*.py")
        for name in imports_of(file)
        for forbidden in FORBIDDEN[folder]
        if name == forbidden or name.startswith(forbidden + ".")
    ]
    assert not crossed


def test_only_the_modules_that_run_on_ray_import_it() -> None:
    importing = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if any(name == "ray" or name.startswith("ray.") for name in imports_of(file))
    }
    assert {file for file in importing if "on_ray" not in file and "distributed" not in file} == set()
    assert importing


def loaded_by(module: str) -> set[str]:
    """Return the modules that are loaded by importing a module in a new process."""
    probe = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(loaded.stdout.split())


HEAVY = {"feast", "torch", "transformers", "lightgbm", "sklearn", "ray"}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("producers.cli", HEAVY | {"pandas", "deltalake"}),
        ("consumers.cli", HEAVY | {"pandas", "deltalake"}),
        ("feature_repo.offline.delta", HEAVY),
        ("producers.maintenance", HEAVY),
        ("producers.encoders.image_loader", HEAVY | {"pyarrow"}),  # what each decoding process imports
    ],
)
def test_modules_that_must_start_fast_import_no_heavy_library(module: str, forbidden: set[str]) -> None:
    assert not forbidden & loaded_by(module)


def test_the_serve_command_sets_environment_variables_before_numpy_and_prometheus_are_imported() -> None:
    assert not {"numpy", "prometheus_client"} & loaded_by("consumers.commands.serve")


def test_the_client_of_a_ranker_does_not_import_the_server() -> None:
    server = {"fastapi", "starlette", "uvicorn", "prometheus_client", "pydantic", "feast", "redis", "lmdb"}
    assert not server & loaded_by("consumers.serving.client")


def map_of(package: Path) -> str:
    """Return the docstring of a package if it lists modules, else an empty string."""
    drawn = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    return drawn if re.search(r"^\s*\w+\.py ", drawn, re.M) else ""


INITS = sorted(init.parent for name in PACKAGES for init in (ROOT / name).rglob("__init__.py"))


@pytest.mark.parametrize(
    "package", [one for one in INITS if map_of(one)], ids=lambda one: one.relative_to(ROOT).as_posix()
)
def test_a_package_docstring_lists_exactly_the_modules_of_the_package(package: Path) -> None:
    drawn = map_of(package)
    there = {file.name for file in package.glob("*.py") if not file.name.startswith("_")}
    there |= {f"{init.parent.name}/" for init in package.glob("*/__init__.py")}
    assert not [name for name in there if not re.search(rf"(^|[^\w]){re.escape(name)}", drawn, re.M)]
    assert not [name for name in re.findall(r"^\s*(\w+\.py) ", drawn, re.M) if not (package / name).exists()]


def test_feast_reads_only_the_definitions() -> None:
    folder = ROOT / "feature_repo"
    ours = {one.name for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file()}
    assert {*(folder / ".feastignore").read_text().split(), "definitions.py"} == ours


def test_no_class_name_is_used_twice() -> None:
    places: dict[str, list[str]] = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(file.relative_to(ROOT).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_module_is_longer_than_400_lines() -> None:
    long = {
        file.relative_to(ROOT).as_posix(): count
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if (count := len(file.read_text().splitlines())) > 400
    }
    assert long == {}
