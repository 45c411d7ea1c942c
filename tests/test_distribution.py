"""What the wheel installs: the core alone reads online features; a missing extra is named with its command."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from feature_repo import extras
from tests.deployments import ROOT, unpack

PACKAGES = ("feature_repo", "producers", "consumers")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE_MODULES = ("numpy", "numpy.libs", "pyarrow", "pyarrow.libs", "lmdb", "redis", "hiredis")
FETCH = """
import sys
from consumers.online import OnlineReader
with OnlineReader(sys.argv[1], project="vitrine") as reader:
    batch = reader.fetch("product_embedding", ["p00001", "p00002", "absent"])
print(batch.values["fused_vector"].shape[0], *batch.status.tolist())
print(*sorted({"torch", "feast", "pandas", "deltalake", "yaml", "typer"} & set(sys.modules)))
"""


def normalize(requirement: str) -> str:
    """The distribution's name in a requirement, as the package index spells it."""
    return re.split(r"[\[<=>!~; ]", requirement)[0].lower().replace("_", "-")


def declared(extra: str | None) -> set[str]:
    """Distributions that the core (None) or an extra declares."""
    requirements = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {normalize(one) for one in requirements}


@cache
def distributions_by_module() -> dict[str, list[str]]:
    return dict(packages_distributions())


def distributions_of(module: str) -> set[str]:
    return {normalize(name) for name in distributions_by_module().get(module, [])}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building in the checkout would leave its build folder there
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in files:
        if name.startswith(PACKAGES) or name in ("pyproject.toml", "README.md", "LICENSE"):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    return next(folder.glob("vitrine-*.whl"))


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules with the wheel and the core dependencies, and nothing else."""
    folder = tmp_path_factory.mktemp("core")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True)
    import numpy

    installed = Path(numpy.__file__).parents[1]
    for name in CORE_MODULES:
        if (installed / name).exists():
            (folder / name).symlink_to(installed / name)
    return folder


def run_core(core: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python without site-packages; it finds the wheel and the core dependencies only."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = str(core)
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=core, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("online")
    unpack(folder)
    return f"lmdb://{folder}/online"


def test_the_core_alone_fetches_features(core: Path, online: str) -> None:
    result = run_core(core, "-c", FETCH, online)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["3 0 0 2", ""]


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("feature_repo.offline", "store"),
        ("feature_repo.stores", "store"),
        ("producers.encoders", "encode"),
        ("consumers.ranking", "rank"),
    ],
)
def test_a_package_whose_extra_is_missing_names_the_install_command(core: Path, module: str, extra: str) -> None:
    result = run_core(core, "-c", f"import {module}")
    assert result.stderr.splitlines()[-1].endswith(f"is not installed; run: pip install 'vitrine[{extra}]'")


@pytest.mark.parametrize("program", ["produce", "consume"])
def test_a_command_line_without_its_extra_is_one_line_and_exit_code_1(core: Path, program: str) -> None:
    package = {"produce": "producers", "consume": "consumers"}[program]
    result = run_core(core, "-m", package, "--version")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line == "error: `typer` is not installed; run: pip install 'vitrine[store]'"


@pytest.mark.parametrize(("extra", "modules"), extras.MODULES.items())
def test_a_missing_module_is_reported_with_the_command_that_installs_it(extra: str, modules: tuple[str, ...]) -> None:
    for module in modules:
        message = extras.describe_missing(ModuleNotFoundError(name=f"{module}.inner"))
        assert message == f"`{module}` is not installed; run: pip install 'vitrine[{extra}]'"
    assert extras.describe_missing(ModuleNotFoundError(name="unknown")) is None


def test_each_extra_installs_the_modules_that_are_listed_for_it() -> None:
    assert set(PROJECT["optional-dependencies"]) - {"all", "dev"} == set(extras.MODULES)
    for extra, modules in extras.MODULES.items():
        for module in modules:
            names = distributions_of(module)
            assert not names or names & declared(extra) or module == "starlette", f"{module} is not in {extra}"


def test_every_imported_library_is_declared() -> None:
    known = {module for modules in extras.MODULES.values() for module in modules}
    bundled = {
        "google": "feast",
        "pydantic_core": "pydantic",
        "markupsafe": "jinja2",
        "starlette": "fastapi",
        "typeguard": "feast",
    }
    undeclared = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.append(node.module)
                for name in names:
                    top = name.partition(".")[0]
                    ours = top in PACKAGES or top in sys.stdlib_module_names
                    if (
                        not ours
                        and top not in known
                        and top not in bundled
                        and not distributions_of(top) & declared(None)
                    ):
                        undeclared.add(f"{file.relative_to(ROOT)} imports {name}")
    assert not undeclared


def test_the_version_is_the_changelogs_newest() -> None:
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest
    assert newest[1] == PROJECT["version"] == version("vitrine")


@pytest.mark.slow
def test_the_wheel_installs_from_the_package_index_and_fetches(wheel: Path, online: str, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)], check=True)
    result = subprocess.run([python, "-c", FETCH, online], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["3 0 0 2", ""]
