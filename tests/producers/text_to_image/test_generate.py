"""Pictures from sentences: seeds, bounds, progress, and folders of pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from feature_repo.errors import ConflictError, CorruptDataError, InvalidInputError
from producers.evaluation.image_folder import read_image_folder
from producers.text_to_image.checkpoint import open_pipeline
from producers.text_to_image.generate import GenerationStoppedError, generate_images
from producers.text_to_image.picture_folder import GenerationSettings, SentenceRow, generate_folder, read_sentences
from tests.producers.text_to_image.tiny_pipeline import SENTENCES, save_tiny_pipeline


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_pipeline(save_tiny_pipeline(tmp_path_factory.mktemp("models") / "tiny"))


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_a_picture_depends_on_its_seed_and_sentence_and_not_on_its_batch(pipeline: Any) -> None:
    together = generate_images(pipeline, SENTENCES, seeds=[5, 6, 7], steps=3)
    alone = [
        generate_images(pipeline, [text], seeds=[seed], steps=3)[0]
        for text, seed in zip(SENTENCES, (5, 6, 7), strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.size == (16, 16)
        assert np.abs(pixels(one) - pixels(other)).max() <= 2  # rounding
    other_seed = generate_images(pipeline, SENTENCES[:1], seeds=[6], steps=3)[0]
    assert np.abs(pixels(other_seed) - pixels(alone[0])).max() > 10


def test_guidance_1_is_the_prediction_of_the_sentence_alone_and_more_guidance_another_picture(pipeline: Any) -> None:
    pictures = [pixels(generate_images(pipeline, ["a navy hat"], seeds=[1], steps=3, guidance=g)[0]) for g in (1, 30)]
    assert np.abs(pictures[0] - pictures[1]).max() > 2


def test_height_and_width_are_as_asked(pipeline: Any) -> None:
    assert generate_images(pipeline, ["hat"], seeds=[1], steps=1, height=8, width=24)[0].size == (24, 8)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_pictures_that_are_no_numbers_are_an_error_and_not_black(tmp_path: Path, part: str) -> None:
    damaged = open_pipeline(save_tiny_pipeline(tmp_path / "damaged"))
    for weight in getattr(damaged, part).parameters():
        weight.fill_(float("nan"))
    with pytest.raises(CorruptDataError, match="not finite"):
        generate_folder(damaged, [SentenceRow("a hat")], tmp_path / "pictures", GenerationSettings(steps=2))
    assert not (tmp_path / "pictures").exists()


def test_progress_is_reported_after_each_step_and_a_stop_is_heeded(pipeline: Any) -> None:
    steps: list[tuple[int, int]] = []
    generate_images(pipeline, ["hat"], seeds=[1], steps=4, on_step=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    steps.clear()
    with pytest.raises(GenerationStoppedError, match="after 2 of 4 steps"):
        generate_images(
            pipeline,
            ["hat"],
            seeds=[1],
            steps=4,
            on_step=lambda done, total: steps.append((done, total)),
            should_stop=lambda: len(steps) == 2,
        )
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [1, 2]}, "2 seeds were given for 1 pictures"),
        ({"seeds": [-1]}, "the seed is -1"),
        ({"seeds": [2**63]}, "the seed is"),
        ({"steps": 0}, "0 steps"),
        ({"steps": 151}, "151 steps"),
        ({"guidance": 0.5}, "guidance is 0.5"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"height": 12}, "height is 12 pixels; expected a multiple of 8"),
        ({"width": 2048}, "width is 2048 pixels"),
        ({"sentences": []}, "0 pictures"),
        ({"sentences": ["x"] * 65, "seeds": [0] * 65}, "65 pictures"),
        ({"sentences": [""]}, "sentence 1 is empty"),
        ({"sentences": ["x" * 10_000]}, "10,000 characters"),
    ],
)
def test_settings_out_of_bounds_are_refused(pipeline: Any, arguments: dict[str, Any], message: str) -> None:
    arguments = {"sentences": ["hat"], "seeds": [0], "steps": 1} | arguments
    with pytest.raises(InvalidInputError, match=message):
        generate_images(pipeline, **arguments)


def test_a_folder_of_pictures_says_how_each_was_made_and_keeps_the_fields_of_its_sentence(
    pipeline: Any, tmp_path: Path
) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"text": "a pink hat", "colour": "pink", "file_name": "p1.jpg"}\n{"text": "蓝色帽子"}\n')
    settings = GenerationSettings(seed=10, count=2, steps=2, guidance=3.0, batch=3)
    assert generate_folder(pipeline, read_sentences(asked), tmp_path / "out", settings) == 4
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert [row["seed"] for row in rows] == [10, 11, 12, 13]
    assert [row["text"] for row in rows] == ["a pink hat"] * 2 + ["蓝色帽子"] * 2
    assert rows[0]["colour"] == "pink"
    assert rows[0]["reference"] == "p1.jpg"
    assert rows[0]["model"].startswith("StableDiffusionPipeline@")
    pictures = read_image_folder(tmp_path / "out")
    again = generate_images(pipeline, [rows[3]["text"]], seeds=[13], steps=2, guidance=3.0)[0]
    with Image.open(pictures[3].path) as image:
        assert np.abs(pixels(image) - pixels(again)).max() <= 2


def test_a_folder_with_content_is_refused_and_a_failed_run_leaves_nothing(pipeline: Any, tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text("a hat\n" + "x" * 3000 + "\n")
    with pytest.raises(InvalidInputError, match="sentence 1 has 3,000"):
        generate_folder(pipeline, read_sentences(asked), tmp_path / "out", GenerationSettings(steps=1, batch=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked.txt"]
    with pytest.raises(ConflictError, match="exists already"):
        generate_folder(pipeline, read_sentences(asked), tmp_path, GenerationSettings())


def test_malformed_lines_of_a_file_of_sentences_are_named(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"text": "a hat"}\n{"txt": "a hat"}\nhat\n')
    with pytest.raises(InvalidInputError, match="line 2: no text; line 3: not JSON"):
        read_sentences(file)
