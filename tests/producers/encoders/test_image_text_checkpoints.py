"""Every image-text family loads by the same function and gives the vectors of its own model."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, BlipForImageTextRetrieval, SiglipTokenizer

from feature_repo.errors import VitrineError
from feature_repo.images.geometry import Geometry
from producers.encoders import load
from tests.producers.encoders import checkpoints

TITLES = ["红色连衣裙", "男童鞋", "蓝", "红色连衣裙女婴儿鞋" * 20]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    noise = np.random.default_rng(0)
    shapes = [(40, 60), (61, 33), (32, 32), (200, 90), (48, 48)]
    return [Image.fromarray(noise.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    for family, make in checkpoints.IMAGE_TEXT.items():
        make(root / family)
    return root


@pytest.mark.parametrize("family", checkpoints.IMAGE_TEXT)
def test_vectors_equal_those_of_the_models_own_forward(family: str, folders: Path, images: list[Image.Image]) -> None:
    encoder = load(str(folders / family))
    model = AutoModel.from_pretrained(folders / family).eval()
    tokens = checkpoints.tokenizer()(
        TITLES,
        padding="max_length" if "siglip" in family else "longest",
        truncation=True,
        return_tensors="pt",
    )
    if "siglip" in family:
        del tokens["attention_mask"]
    prepared = AutoImageProcessor.from_pretrained(folders / family)(images, return_tensors="pt")
    with torch.no_grad():
        forward = model(**tokens, **prepared)
    np.testing.assert_allclose(encoder.encode_texts(TITLES), forward.text_embeds, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_images(images), forward.image_embeds, atol=1e-5)


def test_cosines_of_blips_retrieval_model_equal_those_of_its_own_forward(
    tmp_path: Path, images: list[Image.Image]
) -> None:
    checkpoints.blip_retrieval(tmp_path)
    encoder = load(str(tmp_path))
    model = BlipForImageTextRetrieval.from_pretrained(tmp_path).eval()
    tokens = checkpoints.tokenizer()(TITLES, padding=True, truncation=True, return_tensors="pt")
    prepared = AutoImageProcessor.from_pretrained(tmp_path)(images, return_tensors="pt")
    with torch.no_grad():
        expected = model(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            pixel_values=prepared["pixel_values"],
            use_itm_head=False,
        ).itm_score
    np.testing.assert_allclose(encoder.encode_images(images) @ encoder.encode_texts(TITLES).T, expected, atol=1e-5)


def test_a_blip_for_captioning_is_refused(tmp_path: Path) -> None:
    checkpoints.blip_retrieval(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BlipForConditionalGeneration"]}))
    with pytest.raises(VitrineError, match="BlipForConditionalGeneration has no text vectors"):
        load(str(tmp_path))


@pytest.mark.parametrize("family", checkpoints.IMAGE_TEXT)
def test_rows_have_unit_length_and_follow_the_order_of_the_texts_with_repeats(family: str, folders: Path) -> None:
    encoder = load(str(folders / family))
    titles = [TITLES[3], TITLES[0], TITLES[2], TITLES[0]]
    together = encoder.encode_texts(titles)
    alone = np.concatenate([encoder.encode_texts([title]) for title in titles])
    assert together.dtype == np.float32
    assert together.shape == (4, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("family", ["clip", "chinese_clip", "blip", "siglip"])
def test_resized_pixels_give_the_same_vectors_as_the_processor(
    family: str, folders: Path, images: list[Image.Image]
) -> None:
    encoder = load(str(folders / family))
    assert isinstance(encoder.geometry, Geometry)
    pixels = np.stack([encoder.geometry.apply(image) for image in images])
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(encoder.encode_pixels(pixels), encoder.encode_images(images), atol=1e-5)


@pytest.mark.parametrize("family", ["siglip2", "dual_encoder"])
def test_a_processor_that_does_more_than_resize_and_crop_has_no_geometry(family: str, folders: Path) -> None:
    assert load(str(folders / family)).geometry is None


def test_no_items_give_no_rows(folders: Path) -> None:
    encoder = load(str(folders / "clip"))
    assert encoder.encode_texts([]).shape == (0, 12)
    assert encoder.encode_images([]).shape == (0, 12)
    assert encoder.encode_pixels(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 12)


def test_the_version_has_the_folders_name_and_changes_with_any_file_of_the_encoder(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path / "shop")
    first = load(str(tmp_path / "shop")).version
    assert first.startswith("shop@")
    assert len(first.removeprefix("shop@")) == 12

    (tmp_path / "shop/README.md").write_text("notes are not part of an encoder")
    assert load(str(tmp_path / "shop")).version == first

    settings = tmp_path / "shop/preprocessor_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"do_normalize": False}))
    assert load(str(tmp_path / "shop")).version != first


def test_siglips_sentencepiece_vocabulary_is_read(tmp_path: Path) -> None:
    checkpoints.siglip(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "titles.txt").write_text("a red dress for girls\nblue shoes for boys\na soft toy\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "titles.txt"), model_prefix=str(tmp_path / "spiece"), vocab_size=24, minloglevel=2
    )
    SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=24).save_pretrained(tmp_path)
    rows = load(str(tmp_path)).encode_texts(["a red dress", "blue shoes", "a red dress"])
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-6)
    assert rows[0] @ rows[1] < 0.999
