"""Deployments in a folder of a test: configuration, commands, and the deployment that version 0.1.0 wrote."""

import contextlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from feature_repo import config
from feature_repo.config import Settings

ROOT = Path(__file__).parent.parent
TABLES = (
    "product_catalogue",
    "product_embedding",
    "product_tags",
    "tag_predictions",
    "product_codes",
    "user_interest",
    "product_neighbours",
)
"""The tables that the steps below fill."""
STEPS = (
    "produce catalogue --products shop/products.parquet",
    "produce embeddings --encoder encoder",
    "produce tags --labels shop/labels.parquet",
    # A short training gives vectors that a codebook with the usual limits refuses to code.
    "produce codes --max-collisions 1 --min-entropy 0 --max-error 1",
    "produce interests --impressions shop/impressions.parquet",
    "produce neighbours --impressions shop/impressions.parquet",
)
"""From products to all features, once there is an encoder."""


def configure(folder: Path, tables: Path | None = None) -> Settings:
    """Write the laptop's feature_store.yaml into `folder`, with the tables in `tables` or, if None, beside the file."""
    content = (ROOT / "feature_repo" / "feature_store.yaml").read_text()
    file = folder / "feature_store.yaml"
    file.write_text(content.replace("../data", str(tables or folder)))
    return config.load(file)


def unpack(folder: Path) -> None:
    """Unpack the deployment that version 0.1.0 wrote: tables, online store, registry, encoder, shop and reports."""
    with tarfile.open(Path(__file__).parent / "golden" / "deployment-0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")


def clean_environment() -> dict[str, str]:
    """The environment of a process that runs this checkout and has no deployment named."""
    environment = {name: value for name, value in os.environ.items() if name != config.ENVIRONMENT_VARIABLE}
    return environment | {"PYTHONPATH": str(ROOT)}


def run_in_process(line: str, folder: Path, store: Settings) -> str:
    """Run `produce` or `consume` as `run_command` does, but in this process, which has its libraries loaded already."""
    from typer.testing import CliRunner

    from consumers import cli as consume
    from producers import cli as produce

    program, *arguments = line.split()
    if program == "feast":
        return run_command(line, folder, store)
    if arguments[0] not in ("shop", "encoder"):
        arguments += ["--store", str(store.file)]
    with contextlib.chdir(folder):
        result = CliRunner().invoke({"produce": produce.app, "consume": consume.app}[program], arguments)
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    return result.stdout


def run_main(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `produce` or `consume` in this process as its entry point does; return its exit code and what it printed."""
    from consumers import cli as consume
    from feature_repo import console
    from producers import cli as produce

    before, output, errors = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = [program, *arguments]
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            console.run_command_line({"produce": produce.app, "consume": consume.app}[program])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(sys.argv, code, output.getvalue(), errors.getvalue())


def run_command(line: str, folder: Path, store: Settings) -> str:
    """Run `produce`, `consume` or `feast` as a user in `folder` would; return its output. It must exit with 0."""
    program, *arguments = line.split()
    environment = clean_environment()
    if program == "feast":
        environment[config.ENVIRONMENT_VARIABLE] = str(store.file)
        folder = ROOT / "feature_repo"
    elif arguments[0] not in ("shop", "encoder"):
        arguments += ["--store", str(store.file)]
    command = [str(Path(sys.executable).parent / program), *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    return result.stdout
