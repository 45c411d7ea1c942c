"""Ctrl-C exits with 130 and one line, while libraries are imported and while a command works."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from feature_repo import console, interruption

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", ["producers", "consumers"])
def test_ctrl_c_while_libraries_are_imported(command: str, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", command, "--help"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and all that they start, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "interrupted\n")


def test_ctrl_c_while_a_command_works(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "argv", ["work"])
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            interruption.run_interruptible(lambda: console.run_command_line(app))
    finally:
        signal.signal(signal.SIGINT, heard)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_another_exit_code_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        interruption.run_interruptible(lambda: sys.exit(1))
    assert ended.value.code == 1
    assert capsys.readouterr().err == ""
