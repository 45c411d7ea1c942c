"""`produce export --with-verifier` and `consume serve --towers`, as their users run them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from consumers import cli as consumers_cli
from consumers.online import OnlineReader
from consumers.serving.metrics import Metrics
from consumers.serving.pairs import open_pairs
from feature_repo import config
from feature_repo.errors import NotFoundError, UsageError
from feature_repo.index.rows import find_group_folder
from feature_repo.pairs.verifier import FOLDER
from producers import cli as producers_cli
from tests import servers
from tests.consumers.pairs.world import PairWorld

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def store(
    reader: OnlineReader,
    redis_server: servers.RedisServer,
    pair_world: PairWorld,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The file of a deployment with the verifier and its index, whose online store has rows."""
    folder = tmp_path_factory.mktemp("deployment")
    file = folder / "feature_store.yaml"
    file.write_text(
        "project: shop\noffline_store:\n  path: tables\nonline_store:\n"
        f"  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: {redis_server.address}\n"
    )
    settings = config.load(file)
    shutil.copytree(pair_world.folder / "verifiers", settings.local / FOLDER)
    shutil.copytree(pair_world.index, find_group_folder(settings, pair_world.verifier.version))
    return file


def export(store: Path, pair_world: PairWorld, output: Path, *more: str) -> str:
    arguments = ["export", "--encoder", str(pair_world.folder / "encoder"), "--output", str(output)]
    result = CliRunner().invoke(producers_cli.app, [*arguments, "--store", str(store), *more])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_exported_verifier_answers_for_products_of_the_shop(
    store: Path, pair_world: PairWorld, tmp_path: Path
) -> None:
    message = export(store, pair_world, tmp_path / "towers", "--with-verifier")
    assert f"pair verifier: {pair_world.verifier.version}" in message
    line = ["serve", "--store", str(store), "--flight-port", "-1", "--http-port", "0", "--access-log", ""]
    process = subprocess.Popen(
        [sys.executable, "-m", "consumers.cli", *line, "--towers", str(tmp_path / "towers"), "--deadline", "20"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stderr is not None
    try:
        started = process.stderr.readline()
        match = re.fullmatch(r"serving http at (\S+)\n", started)
        assert match, started + process.stderr.read()
        pair = {"left": {"product_id": "p0"}, "right": {"product_id": "p1"}}
        answer = httpx.post(f"{match[1]}/v1/pairs", content=json.dumps({"pairs": [pair]}), timeout=30).json()
        assert answer["pairs"][0]["is_same"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_store_without_a_verifier_of_the_encoder_names_the_command(pair_world: PairWorld, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: shop\noffline_store:\n  path: tables\n")
    with pytest.raises(NotFoundError, match=r"no pair verifier of encoder@.*produce groups --pairs"):
        export(tmp_path / "feature_store.yaml", pair_world, tmp_path / "towers", "--with-verifier")
    assert not (tmp_path / "towers").exists()


def test_an_export_without_a_verifier_scores_no_pairs(store: Path, pair_world: PairWorld, tmp_path: Path) -> None:
    export(store, pair_world, tmp_path / "towers")
    options = {"triton": None, "deadline_seconds": 1.0, "refresh_seconds": 60.0, "metrics": Metrics()}
    with pytest.raises(NotFoundError, match="no pair verifier; run: produce export --with-verifier"):
        open_pairs(config.load(store), tmp_path / "towers", is_required=True, **options)
    assert open_pairs(config.load(store), tmp_path / "towers", is_required=False, **options) is None


def test_a_triton_server_without_an_export_is_refused() -> None:
    result = CliRunner().invoke(consumers_cli.app, ["serve", "--triton", "http://127.0.0.1:8000"])
    assert isinstance(result.exception, UsageError)
    assert "--triton needs --towers" in str(result.exception)
