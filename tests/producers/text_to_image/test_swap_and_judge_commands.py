"""From the command line: swap a text encoder, generate, judge, and merge the figures into a table."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from producers.cli import app
from tests.producers.encoders import checkpoints
from tests.producers.text_to_image.drawn_pictures import list_pairs, write_pictures
from tests.producers.text_to_image.tiny_pipeline import save_tiny_pipeline


def produce(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands")
    (root / "encoder").mkdir()
    checkpoints.chinese_clip(root / "encoder")
    save_tiny_pipeline(root / "model")
    write_pictures(root / "real", list_pairs(200, seed=1))
    asked = [
        {"text": "红色", "attributes": {"colour": "red", "shape": "disc"}},
        {"text": "蓝色", "attributes": {"colour": "blue", "shape": "square"}},
    ]
    (root / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    return root


def test_a_swapped_model_is_generated_from_and_judged(folder: Path) -> None:
    swapped, pictures, figures = folder / "swapped", folder / "pictures", folder / "figures/first.json"
    said = produce(
        "picture", "swap", "--model", folder / "model", "--text-encoder", folder / "encoder", "--out", swapped
    )
    assert "ChineseCLIPTextModel of encoder@" in said
    assert "follow no sentence" in said
    options = ["--sentences", folder / "asked.jsonl", "--count", 3, "--steps", 2, "--output", pictures]
    produce("picture", "generate", "--model", swapped, *options)
    judged = ["--pictures", pictures, "--real", folder / "real", "--encoder", folder / "encoder", "--json", figures]
    said = produce("picture", "judge", *judged, "--attributes", "colour,shape")
    assert "2 queries, 6 pictures" in said
    measures = json.loads(figures.read_text())["measures"]
    assert {"colour", "colour chance", "shape relative", "R@1", "Frechet distance real", "diversity"} <= set(measures)
    assert measures["colour real"]["value"] > 0.8
    produce("evaluate", "table", figures.parent, "--output", folder / "table.csv")
    with (folder / "table.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["subject"] == "pictures"
    assert float(row["colour real"]) == measures["colour real"]["value"]
