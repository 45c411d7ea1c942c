"""Feast starts without torch, and without instrumented constructors where it only reads its registry."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from producers.pipeline.process import run_process
from tests.deployments import ROOT, configure


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip()


def test_feast_takes_only_the_deferred_function_of_its_module_that_imports_torch() -> None:
    spec = find_spec("feast")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    files = [file for file in Path(spec.submodule_search_locations[0]).rglob("*.py") if "templates" not in file.parts]
    lines = {line.strip() for file in files for line in file.read_text().splitlines() if "torch_wrapper" in line}
    assert lines == {"from feast.torch_wrapper import get_torch"}


def test_a_feature_store_is_opened_without_torch_which_feast_imports_when_it_needs_it() -> None:
    code = (
        "import sys, feature_repo.stores, feast.online_response as response; print('torch' in sys.modules); "
        "print(response.get_torch() is sys.modules['torch'])"
    )
    assert run_python(code).split() == ["False", "True"]


def test_feast_that_is_imported_already_keeps_its_own_module() -> None:
    code = "import sys, feast.torch_wrapper as own, feature_repo.stores; print(sys.modules[own.__name__] is own)"
    assert run_python(code) == "True"


def test_only_commands_that_read_the_registry_leave_constructors_unchecked() -> None:
    code = (
        "import sys; sys.argv = ['feast', {!r}, '--help']\n"
        "from producers.pipeline import feast_command\n"
        "try: feast_command.main()\n"
        "except SystemExit: pass\n"
        "from feast import Entity\n"
        "try: print('accepted', Entity(name='e', description=3).name)\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    assert run_python(code.format("materialize-incremental")).endswith("accepted e")
    assert run_python(code.format("apply")).endswith("TypeCheckError")


def test_a_step_of_feast_runs_in_the_folder_of_the_views_and_takes_no_module_from_there(tmp_path: Path) -> None:
    store, lines = configure(tmp_path), list[str]()
    code, _ = run_process(["feast", "version"], tmp_path, store.file, lines.append)
    assert (code, "Feast SDK Version" in lines[-1]) == (0, True)
    code, last = run_process(["feast", "no-such-command"], tmp_path, store.file, lines.append)
    assert (code, last) == (2, "Error: No such command 'no-such-command'.")
