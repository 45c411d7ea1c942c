import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from producers.text_to_image.checkpoint import hash_frozen_parts, open_pipeline, save_pipeline
from producers.text_to_image.generate import generate_images
from producers.text_to_image.sentences import encode_sentences, tokenize_sentences
from producers.text_to_image.swap import swap_text_encoder
from tests.deployments import ROOT
from tests.producers.encoders import checkpoints
from tests.producers.text_to_image.tiny_pipeline import SIZES, save_tiny_pipeline


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Untrained models by the width that their UNet attends to; that of the encoders is 16."""
    folder = tmp_path_factory.mktemp("models")
    return {
        width: save_tiny_pipeline(folder / str(width), sizes=replace(SIZES, text_width=width)) for width in (16, 32)
    }


@pytest.fixture(scope="module")
def chinese_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "chinese"
    folder.mkdir()
    checkpoints.chinese_clip(folder)
    return folder


@pytest.fixture(scope="module")
def swapped(models: dict[int, Path], chinese_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("swapped")
    for width, model in models.items():
        swap_text_encoder(model, str(chinese_clip), folder / str(width))
    return {width: folder / str(width) for width in models}


@pytest.mark.parametrize("width", [16, 32])
def test_all_but_the_text_encoder_stays_byte_for_byte(
    models: dict[int, Path], swapped: dict[int, Path], width: int
) -> None:
    def read(folder: Path) -> dict[str, bytes]:
        files = (file for file in folder.rglob("*") if file.is_file())
        names = {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
        replaced = ("text_encoder/", "tokenizer/", "model_index.json")
        return {name: content for name, content in names.items() if not name.startswith(replaced)}

    before = read(models[width])
    assert {name.split("/")[0] for name in before} == {"scheduler", "unet", "vae"}
    assert read(swapped[width]) == before
    assert hash_frozen_parts(open_pipeline(swapped[width])) == hash_frozen_parts(open_pipeline(models[width]))


def test_a_new_process_opens_checkpoints_without_our_code_where_widths_agree_and_else_with_it(
    swapped: dict[int, Path],
) -> None:
    index = json.loads((swapped[16] / "model_index.json").read_text())
    assert index["text_encoder"] == ["transformers", "ChineseCLIPTextModel"]
    probe = (
        "import sys; from diffusers import StableDiffusionPipeline as P; "
        "p = P.from_pretrained(sys.argv[1], safety_checker=None); p.set_progress_bar_config(disable=True); "
        "print(p('红色', num_inference_steps=1).images[0].size, 'producers' in sys.modules); "
        "sys.path.insert(0, sys.argv[3]); "
        "from pathlib import Path; from producers.text_to_image.checkpoint import open_pipeline; "
        "print(type(open_pipeline(Path(sys.argv[2])).text_encoder).__name__)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", probe, str(swapped[16]), str(swapped[32]), str(ROOT)],
        capture_output=True, text=True, cwd=swapped[16].parent, env=environment, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["(16, 16) False", "ProjectedTextEncoder"], done.stderr
    assert "newly initialized" not in done.stderr


def test_the_states_are_those_of_the_encoder(swapped: dict[int, Path], chinese_clip: Path) -> None:
    from producers.encoders import load

    encoder = load(str(chinese_clip))
    pipeline = open_pipeline(swapped[16])
    tokens = tokenize_sentences(pipeline.tokenizer, ["红色女童鞋"])
    with torch.no_grad():
        expected = encoder.model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        assert torch.equal(encode_sentences(pipeline, ["红色女童鞋"]), expected)
    projected = open_pipeline(swapped[32])
    with torch.no_grad():
        states = projected.text_encoder.projection(expected)
        assert torch.allclose(encode_sentences(projected, ["红色女童鞋"]), states, atol=1e-6)


def test_padding_is_not_attended_to(swapped: dict[int, Path]) -> None:
    for folder in swapped.values():
        pipeline = open_pipeline(folder)
        with torch.no_grad():
            length = len(pipeline.tokenizer("红色").input_ids)
            padded = encode_sentences(pipeline, ["红色"])[:, :length]
            alone = pipeline.text_encoder(torch.tensor([pipeline.tokenizer("红色").input_ids]))[0]
        assert torch.allclose(padded, alone, atol=1e-5)


def test_a_projection_survives_saving_and_opening(swapped: dict[int, Path], tmp_path: Path) -> None:
    pipeline = open_pipeline(swapped[32])
    save_pipeline(pipeline, tmp_path / "saved")
    again = open_pipeline(tmp_path / "saved")
    pictures = [np.asarray(generate_images(one, ["红色"], seeds=[3], steps=2)[0]) for one in (pipeline, again)]
    assert (pictures[0] == pictures[1]).all()


def test_the_projection_gives_states_of_the_size_that_the_unet_is_used_to(
    models: dict[int, Path], swapped: dict[int, Path]
) -> None:
    with torch.no_grad():
        old, new = (
            encode_sentences(open_pipeline(folder[32]), [""]).square().mean().sqrt() for folder in (models, swapped)
        )
    assert 0.5 < float(new / old) < 2


def test_the_same_seed_gives_the_same_projection(
    models: dict[int, Path], swapped: dict[int, Path], chinese_clip: Path, tmp_path: Path
) -> None:
    swap_text_encoder(models[32], str(chinese_clip), tmp_path / "again")
    swap_text_encoder(models[32], str(chinese_clip), tmp_path / "other", seed=1)
    weights = [
        (folder / "text_encoder/model.safetensors").read_bytes()
        for folder in (swapped[32], tmp_path / "again", tmp_path / "other")
    ]
    assert weights[0] == weights[1] != weights[2]


def test_the_length_is_finite_and_longer_sentences_are_cut(swapped: dict[int, Path]) -> None:
    pipeline = open_pipeline(swapped[16])
    assert pipeline.tokenizer.model_max_length == 24
    assert tokenize_sentences(pipeline.tokenizer, ["红" * 22, "红" * 23]).cut == (1,)


def test_refuses_other_widths_without_a_projection(models: dict[int, Path], chinese_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"16 wide and the UNet of .* attends to 32") as raised:
        swap_text_encoder(models[32], str(chinese_clip), tmp_path / "out", project=False)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["siglip", "clip", "dual_encoder"])
@pytest.mark.parametrize("width", [16, 32])
def test_takes_the_text_tower_of_every_family_that_has_one(
    models: dict[int, Path], tmp_path: Path, family: str, width: int
) -> None:
    (tmp_path / "encoder").mkdir()
    getattr(checkpoints, family)(tmp_path / "encoder")
    swap_text_encoder(models[width], str(tmp_path / "encoder"), tmp_path / "out")
    assert generate_images(open_pipeline(tmp_path / "out"), ["红色"], seeds=[0], steps=1)


def test_refuses_an_encoder_of_another_class_in_one_line(models: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    checkpoints.blip(tmp_path / "encoder")
    with pytest.raises(InvalidInputError) as raised:
        swap_text_encoder(models[16], str(tmp_path / "encoder"), tmp_path / "out")
    assert "\n" not in str(raised.value)


def test_refuses_a_model_of_another_class_and_an_output_with_content(
    models: dict[int, Path], chinese_clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=r"model_index\.json is missing"):
        swap_text_encoder(chinese_clip, str(chinese_clip), tmp_path / "out")
    with pytest.raises(ConflictError, match="exists already"):
        swap_text_encoder(models[16], str(chinese_clip), models[32])
    with pytest.raises(ConflictError, match="is in the checkpoint"):
        swap_text_encoder(models[16], str(chinese_clip), models[16] / "unet" / "swapped")
