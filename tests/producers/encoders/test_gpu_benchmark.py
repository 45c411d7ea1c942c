"""The GPU benchmark also runs on a CPU with a tiny model, so that its code is tested before it takes GPU time."""

import re
import sys

import pytest
from typer.testing import CliRunner

from tests.benchmarks import encoding


def test_it_measures_all_figures_within_its_time_and_reports_what_limits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("feast", "redis", "deltalake"):  # a GPU machine has none of these
        monkeypatch.setitem(sys.modules, name, None)
    arguments = [
        "gpu",
        "--tiny",
        "--minutes",
        "0.05",
        "--images",
        "70",
        "--jpeg",
        "64",
        "--workers",
        "1",
        "--rounds",
        "2",
    ]
    done = CliRunner().invoke(encoding.app, arguments, catch_exceptions=False)
    for model in ("two layers", "EfficientNet-Lite0"):
        assert re.search(rf"already decoded, {model} at 224 px.*matrix product, .* TFLOP/s", done.output)
        assert re.search(rf"uncompiled model, {model} at 224 px.*not compiled on a CPU", done.output)
    assert re.search(r"encode titles, text tower of two layers.* titles/s", done.output)
    assert re.search(
        r"70 JPEG of 64 px.*read .* decode .* encode .* write .*; limited by (decoding|the model)", done.output
    )
