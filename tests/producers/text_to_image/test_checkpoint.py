"""Opening and saving checkpoints of Stable Diffusion's classes."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError, UnavailableError, VitrineError
from producers.text_to_image.checkpoint import (
    compute_model_version,
    hash_frozen_parts,
    hash_tensors,
    open_pipeline,
    save_pipeline,
)
from producers.text_to_image.sentences import check_sentences, describe_cut, encode_sentences, tokenize_sentences
from tests.producers.text_to_image.tiny_pipeline import save_tiny_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_pipeline(tmp_path / "model")


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_saved_folder_opens_with_diffusers_alone_and_with_the_same_weights(folder: Path) -> None:
    ours, theirs = open_pipeline(folder), StableDiffusionPipeline.from_pretrained(folder)
    assert hash_frozen_parts(ours) == hash_frozen_parts(theirs)
    assert compute_model_version(ours) == compute_model_version(theirs)
    assert not any(weight.requires_grad for weight in ours.unet.parameters())


def test_the_hash_covers_values_names_shapes_and_dtypes_and_not_the_order() -> None:
    zeros = torch.zeros(2, 3)
    base = hash_tensors({"a": zeros, "b": torch.ones(1)})
    assert hash_tensors({"b": torch.ones(1), "a": zeros}) == base
    others = (zeros.reshape(3, 2), zeros.to(torch.int32), torch.full((2, 3), 1e-45))
    assert base not in {hash_tensors({"a": other, "b": torch.ones(1)}) for other in others}
    assert hash_tensors({"c": zeros, "b": torch.ones(1)}) != base


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_the_version_changes_with_any_weight(folder: Path, part: str) -> None:
    pipeline = open_pipeline(folder)
    before = compute_model_version(pipeline), hash_frozen_parts(pipeline)
    with torch.no_grad():
        next(getattr(pipeline, part).parameters()).view(-1)[0] += 1
    assert compute_model_version(pipeline) != before[0]
    assert (hash_frozen_parts(pipeline) == before[1]) == (part == "text_encoder")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_models_that_predict_noise_or_velocity_open(folder: Path, prediction: str) -> None:
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type=prediction)
    assert open_pipeline(folder).scheduler.config.prediction_type == prediction


@pytest.mark.parametrize(
    ("file", "values", "error", "message"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, InvalidInputError, "StableDiffusionXL"),
        ("model_index.json", {"text_encoder": ["os", "system"]}, InvalidInputError, "module `os`"),
        ("model_index.json", {"unet": [None, None]}, InvalidInputError, "names no unet"),
        ("model_index.json", {"unet": "UNet2DConditionModel"}, InvalidInputError, "names no unet"),
        ("model_index.json", {"unet": [7, {}]}, InvalidInputError, "module `7`"),
        ("model_index.json", {"text_encoder": ["transformers", "NoSuchModel"]}, VitrineError, "NoSuchModel"),
        ("model_index.json", {"image_encoder": ["antigravity", "fly"]}, InvalidInputError, "module `antigravity`"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, InvalidInputError, "predicts `sample`"),
        ("unet/config.json", {"sample_size": None}, InvalidInputError, "`sample_size` is None"),
        ("unet/config.json", {"cross_attention_dim": 24}, VitrineError, "24|cannot be read"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_in_one_line(
    folder: Path, file: str, values: dict[str, object], error: type[VitrineError], message: str
) -> None:
    change_json(folder / file, **values)
    with pytest.raises(error, match=message) as refusal:
        open_pipeline(folder)
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_text_encoder_of_another_width_than_the_unet_attends_to_is_refused(folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from tests.producers.text_to_image.tiny_pipeline import SIZES

    wide = open_pipeline(save_tiny_pipeline(tmp_path / "wide", sizes=replace(SIZES, text_width=24)))
    pipeline = open_pipeline(folder)
    pipeline.text_encoder = wide.text_encoder
    save_pipeline(pipeline, tmp_path / "mixed")
    with pytest.raises(InvalidInputError, match="24 wide and the UNet attends to 16"):
        open_pipeline(tmp_path / "mixed")


def test_a_folder_that_is_missing_or_damaged_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"model_index\.json is missing"):
        open_pipeline(tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CorruptDataError, match="cannot be read"):
        open_pipeline(folder)
    (folder / "model_index.json").write_text("[]")
    with pytest.raises(CorruptDataError, match="not a JSON object"):
        open_pipeline(folder)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_checkpoint_that_lacks_a_weight_is_refused_and_none_is_made_up(folder: Path, part: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    del weights[sorted(weights)[0]]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(CorruptDataError, match=f"{part}.*missing") as refusal:
        open_pipeline(folder)
    assert "\n" not in str(refusal.value)


def test_saving_never_replaces_a_folder_with_content(folder: Path) -> None:
    with pytest.raises(UnavailableError, match=r"cannot be written .*not empty"):
        save_pipeline(open_pipeline(folder), folder)
    assert open_pipeline(folder)


def test_the_length_of_a_tokenizer_without_one_is_that_of_the_text_encoder(folder: Path) -> None:
    change_json(folder / "tokenizer" / "tokenizer_config.json", model_max_length=int(1e30))
    assert open_pipeline(folder).tokenizer.model_max_length == 16


def test_a_sentence_beyond_the_length_is_cut_and_counted_and_one_of_exactly_that_length_is_not(folder: Path) -> None:
    tokenizer = open_pipeline(folder).tokenizer
    word = next(w for w in ("a", "n") if len(tokenizer(w).input_ids) == 3)
    sentences = [f"{word} " * 14, "pink", f"{word} " * 15, ""]
    tokens = tokenize_sentences(tokenizer, sentences)
    assert tokens.input_ids.shape == (4, 16)
    assert tokens.attention_mask.sum(dim=1).tolist()[0] == 16
    assert tokens.cut == (2,)
    assert "1 of 4 sentences" in str(describe_cut(sentences, tokens))
    assert describe_cut(sentences[:2], tokenize_sentences(tokenizer, sentences[:2])) is None


def test_text_states_are_those_of_the_pipeline(folder: Path) -> None:
    pipeline = open_pipeline(folder)
    theirs, _ = pipeline.encode_prompt(["a pink romper"], "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(encode_sentences(pipeline, ["a pink romper"]), theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [([], "no sentence"), (["pink", " \n"], "sentence 2 is empty"), (["x" * 10_000], "10,000 characters")],
)
def test_sentences_that_are_empty_or_far_too_long_are_refused(sentences: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_sentences(sentences)


def test_a_tokenizer_without_a_vocabulary_is_refused(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    with pytest.raises(CorruptDataError, match="tokenizer: the vocabulary is missing"):
        open_pipeline(folder)


def test_a_tokenizer_of_more_tokens_than_the_text_encoder_has_is_refused(folder: Path) -> None:
    tokenizer = open_pipeline(folder).tokenizer
    tokenizer.add_tokens([f"<{number}>" for number in range(1_000)])
    tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(CorruptDataError, match="tokens and the text encoder 520"):
        open_pipeline(folder)


def test_a_sentence_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="sentence 2 is not UTF-8"):
        check_sentences(["a hat", "a \udcff"])


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, part: str, value: float) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[0] = value
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CorruptDataError, match=rf"{part}: \S+ has values that are not finite"):
        open_pipeline(folder)
