"""Encoders assembled from two towers: trained heads, kept outputs, refusals."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from feature_repo.errors import CorruptDataError, EncoderMismatchError, InvalidInputError, NotFoundError
from producers.embeddings.output_store import IMAGE, TITLE, open_outputs
from producers.encoders import load
from producers.encoders.assembled import efficientnet_lite, heads, towers
from producers.encoders.assembled.assemble import AssemblySummary, assemble
from producers.encoders.assembled.encoder import AssembledEncoder
from producers.encoders.towers import build_towers
from tests.producers.encoders import checkpoints

TITLES = [f"红色{'连衣裙' if number % 2 else '男童鞋'}{'蓝女' * (number % 3)}" for number in range(48)]


def draw(number: int) -> bytes:
    """A picture whose colour follows from the title's kind, with noise."""
    noise = np.random.default_rng(number).integers(0, 60, (40, 36, 3))
    noise[..., number % 2 * 2] += 150
    stream = BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [draw(number) for number in range(48)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers")
    for name in ("clip", "siglip", "chinese_clip"):
        checkpoints.IMAGE_TEXT[name](folder / name)
    return folder


def build(sources: Path, out: Path, image: str, text: str, head: str = "linear") -> AssemblySummary:
    with open_outputs(sources / "outputs") as store:
        return assemble(
            TITLES,
            IMAGES,
            out,
            store,
            image_tower=str(sources / image),
            text_tower=text if text == "none" else str(sources / text),
            head=head,
            dim=12,
            seed=0,
            progress=lambda stage, done, total: None,
        )


@pytest.fixture(scope="module")
def assembled(sources: Path) -> AssembledEncoder:
    build(sources, sources / "assembled", "clip", "siglip", "mlp")
    encoder = load(str(sources / "assembled"), device="cpu")
    assert isinstance(encoder, AssembledEncoder)
    return encoder


def test_towers_of_other_families_are_joined_and_loaded_by_the_same_door(assembled: AssembledEncoder) -> None:
    assert assembled.geometry is not None
    pixels = np.stack([assembled.geometry.apply(Image.open(BytesIO(image))) for image in IMAGES[:6]])
    image, text = assembled.encode_pixels(pixels), assembled.encode_texts(TITLES[:6])
    assert image.shape == text.shape == (6, 12)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(image, assembled.encode_images([Image.open(BytesIO(i)) for i in IMAGES[:6]]), atol=1e-5)
    np.testing.assert_array_equal(image, assembled.project_images(assembled.encode_pixel_outputs(pixels)))
    scores = text @ image.T
    kind = np.arange(6) % 2
    same = kind[:, None] == kind[None, :]
    assert scores[same].mean() > scores[~same].mean() + 0.1
    for tower, expected in zip(build_towers(assembled, pixels, TITLES[:6]), (image, text), strict=True):
        with torch.no_grad():  # what the ONNX export traces
            actual = tower(*map(torch.from_numpy, tower.probes[0].values())).numpy()
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_words_alone_carry_titles_that_no_text_tower_reads(sources: Path, tmp_path: Path) -> None:
    summary = build(sources, tmp_path / "words", "chinese_clip", "none")
    encoder = load(str(tmp_path / "words"), device="cpu")
    shoes, dress, small_shoes = encoder.encode_texts([TITLES[0], TITLES[1], TITLES[2]])
    assert summary.titles_encoded == 0
    assert shoes @ small_shoes > shoes @ dress
    assert np.isnan(encoder.encode_texts(["?"])).all()  # no word of the shop


def test_a_new_head_calls_no_tower(sources: Path, assembled: AssembledEncoder, tmp_path: Path) -> None:
    again = build(sources, tmp_path / "again", "clip", "siglip", "linear")
    assert (again.images_encoded, again.titles_encoded) == (0, 0)
    other = load(str(tmp_path / "again"), device="cpu")
    assert isinstance(other, AssembledEncoder)
    assert other.version != assembled.version
    assert (other.image_fingerprint, other.text_fingerprint) == (
        assembled.image_fingerprint,
        assembled.text_fingerprint,
    )


def test_a_tower_that_changed_under_its_name_is_refused(
    sources: Path, assembled: AssembledEncoder, tmp_path: Path
) -> None:
    with open_outputs(sources / "outputs") as store, pytest.raises(EncoderMismatchError, match=r"has changed: .* now;"):
        store.check_name(IMAGE, str(sources / "clip"), "0" * 12)


def test_outputs_are_kept_in_order_once_and_survive_a_torn_write(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 3)).astype(np.float16)
    hashes = [bytes([number]) * 16 for number in range(5)]
    rows[3] = np.inf
    with open_outputs(tmp_path) as store:
        store.put(IMAGE, "ab" * 6, hashes[:2], rows[:2])
        with (tmp_path / f"{'ab' * 6}-i.f16").open("ab") as file:
            file.write(b"torn")  # rows of a killed run, which the index does not name
        store.put(IMAGE, "ab" * 6, [hashes[1], *hashes[2:]], rows[[0, 2, 3, 4]])
        kept = store.get(IMAGE, "ab" * 6, [hashes[4], None, hashes[1], hashes[0], hashes[3], hashes[4]], 3)
        np.testing.assert_array_equal(kept[[0, 2, 3, 5]], rows[[4, 1, 0, 4]])
        assert np.isnan(kept[[1, 4]]).all()
        assert np.isnan(store.get(TITLE, "ab" * 6, hashes[:1], 3)).all()
        (tmp_path / f"{'ab' * 6}-i.f16").write_bytes(b"")
        with pytest.raises(CorruptDataError, match="are missing or cut off"):
            store.get(IMAGE, "ab" * 6, hashes[:1], 3)


def test_validation_titles_are_drawn_whole_and_hard_negatives_are_neighbours() -> None:
    title_ids = np.repeat(np.arange(300), 2)
    rows = heads.draw_validation(title_ids, 0)
    assert len(rows) == 60
    assert set(title_ids[rows]) & set(title_ids[np.setdiff1d(np.arange(600), rows)]) == set()
    assert not len(heads.draw_validation(np.arange(100), 0))


def test_broken_towers_are_refused_in_one_line(sources: Path, tmp_path: Path) -> None:
    checkpoints.bert(tmp_path / "bert")
    cases = [
        (towers.open_image_tower, tmp_path / "bert", InvalidInputError, "has no vision tower"),
        (towers.open_text_tower, tmp_path / "bert", InvalidInputError, "has no text tower"),
        (towers.open_image_tower, tmp_path / "absent", NotFoundError, "neither a directory here"),
    ]
    checkpoints.clip(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").unlink()
    (tmp_path / "clip" / "tokenizer.json").unlink()
    cases += [
        (towers.open_image_tower, tmp_path / "clip", CorruptDataError, "the image processor is missing"),
        (towers.open_text_tower, tmp_path / "clip", CorruptDataError, "the tokenizer is missing"),
    ]
    for open_tower, folder, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            open_tower(str(folder))
        assert len(str(caught.value).splitlines()) == 1


def test_weights_with_another_checksum_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "lite0.pth"
    file.write_bytes(b"not the weights")
    with pytest.raises(CorruptDataError, match=r"its SHA-256 is .* was expected; the file is not read"):
        efficientnet_lite.load(file)


def test_efficientnet_lite0_has_every_weight_and_keeps_its_outputs_when_folded() -> None:
    file = efficientnet_lite.find_weights()
    if file is None:
        pytest.skip("the package with the weights is not installed")
    model = efficientnet_lite.load(file)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(pixel_values=pixels).pooler_output
        model.fold()
        after = model(pixel_values=pixels).pooler_output
    np.testing.assert_allclose(before.numpy(), after.numpy(), atol=1e-3)
    assert before.shape[1] == 1280
