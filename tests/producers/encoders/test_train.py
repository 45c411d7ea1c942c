"""Training of the default encoder, on a shop that is small enough to be learned in seconds."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from feature_repo.errors import VitrineError
from producers.cli import app
from producers.encoders import load
from producers.encoders.checkpoint_version import NAME_FILE
from producers.encoders.train import TrainingSummary, train
from producers.encoders.training.contrastive import contrastive_loss
from producers.encoders.training.pairs import crop_images, jitter_colours
from producers.learning.encoder import train_encoder
from tests.small_disk import no_file_longer_than

COLOURS = {"红色": (220, 30, 30), "绿色": (30, 180, 60), "蓝色": (40, 60, 220), "黑色": (15, 15, 15)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[Path | bytes]]:
    """Images of one colour each, and titles that name the colour among other words."""
    folder, chance = tmp_path_factory.mktemp("shop"), np.random.default_rng(0)
    titles, images = [], []
    for number in range(200):
        name = list(COLOURS)[number % len(COLOURS)]
        noise = chance.integers(-20, 20, (32, 32, 3))
        pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        images.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(images[-1])
        titles.append(f"宝宝{name}连衣裙 款{number}")
    return titles, images


def trained(shop: tuple[list[str], list[Path | bytes]], folder: Path, pairs: int) -> TrainingSummary:
    summary = train(*shop, folder, pairs_seen=pairs, seed=5, progress=lambda *_: None)
    assert summary is not None
    return summary


def test_an_image_is_closest_to_the_title_that_names_its_colour(shop, tmp_path: Path) -> None:
    trained(shop, tmp_path, pairs=1500)
    encoder = load(str(tmp_path))
    flat = [Image.new("RGB", (50, 40), rgb) for rgb in COLOURS.values()]
    texts = encoder.encode_texts([f"宝宝{name}连衣裙" for name in COLOURS])
    assert (encoder.encode_images(flat) @ texts.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_the_same_seed_trains_the_same_encoder_with_the_same_version(shop, tmp_path: Path) -> None:
    for name in ("once", "again"):
        trained(shop, tmp_path / name / "small", pairs=128)
    first, second = (load(str(tmp_path / name / "small")) for name in ("once", "again"))
    assert first.version == second.version
    (tmp_path / "again" / "small" / NAME_FILE).write_text("acme/looks-2\n")
    assert load(str(tmp_path / "again" / "small")).version == first.version.replace("small@", "acme/looks-2@")
    np.testing.assert_array_equal(first.encode_texts(["红色"]), second.encode_texts(["红色"]))


def test_a_full_disk_is_reported_in_one_line(shop, tmp_path: Path) -> None:
    titles, images = shop
    with (
        no_file_longer_than(1_900_000),  # enough for a few decoded images, too little for the weights
        pytest.raises(VitrineError, match=r"encoder: the checkpoint cannot be written .*File too large") as texts,
    ):
        trained((titles[:5], images[:5]), tmp_path / "encoder", pairs=5)
    assert "\n" not in str(texts.value)


def test_unusable_images_are_left_out_and_counted(shop, tmp_path: Path) -> None:
    titles, images = shop
    summary = trained(([*titles, "没有"], [*images, tmp_path / "gone.jpg"]), tmp_path / "encoder", pairs=128)
    assert (summary.pairs, summary.left_out) == (200, 1)


def test_too_few_usable_pairs_are_reported(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="at least 2"):
        trained((["红色"], [tmp_path / "gone.jpg"]), tmp_path / "encoder", pairs=128)


def test_a_file_in_place_of_the_output_folder_is_reported_before_training(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(VitrineError, match="taken is a file: name a folder"):
        train_encoder(tmp_path, tmp_path / "taken", pairs_seen=128, seed=0, progress=lambda *_: None)


def test_a_name_that_is_none_is_reported_before_training(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="'a@b' is no name of an encoder"):
        train_encoder(tmp_path, tmp_path / "new", pairs_seen=128, seed=0, progress=lambda *_: None, name="a@b")


def test_only_the_first_of_several_processes_prints_the_number_of_clicks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = pa.table({"user_id": ["u"]}), datetime(2026, 1, 1, tzinfo=UTC)
    monkeypatch.setattr("producers.learning.encoder.read_clicks_before", lambda *_, **__: clicks)
    monkeypatch.setattr("producers.learning.encoder.train_encoder", lambda *_, **__: None)
    arguments = [
        "encoder",
        "--data",
        str(tmp_path),
        "--output",
        str(tmp_path),
        "--align",
        "log.parquet",
        "--test-days",
        "1",
    ]
    for rank, is_printed in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, "1 clicks before" in result.output) == (0, is_printed)


def test_products_with_the_same_title_are_all_correct_answers() -> None:
    image = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    apart = contrastive_loss(image, image, torch.tensor([0, 1, 2]), torch.tensor(50.0))
    together = contrastive_loss(image, image, torch.tensor([0, 0, 2]), torch.tensor(50.0))
    assert together.item() == pytest.approx(apart.item(), abs=0.4)
    wrong = contrastive_loss(image, image.flip(0), torch.tensor([0, 0, 2]), torch.tensor(50.0))
    assert wrong > 10 * together


def test_a_crop_keeps_colours_and_size() -> None:
    pixels = np.full((3, 64, 64, 3), (255, 0, 127), np.uint8)
    cropped = crop_images(torch.from_numpy(pixels), 0.5, np.random.default_rng(0))
    assert cropped.shape == (3, 3, 64, 64)
    np.testing.assert_allclose(cropped[:, 0], 255, atol=1e-3)
    np.testing.assert_allclose(cropped[:, 1], 0, atol=1e-3)


def test_a_smaller_crop_share_changes_more_and_colour_changes_stay_within_bounds() -> None:
    edge = np.zeros((40, 64, 64, 3), np.uint8)
    edge[:, :, 32:] = 200
    values = torch.from_numpy(edge)
    moved = [
        float(
            (
                crop_images(values, smallest, np.random.default_rng(0))
                - crop_images(values, 1.0, np.random.default_rng(0))
            ).std()
        )
        for smallest in (0.95, 0.3)
    ]
    assert moved[0] < moved[1]
    whole = values.permute(0, 3, 1, 2).float()
    texts = jitter_colours(whole, 0.2, np.random.default_rng(0))[:, :, :, 40]
    assert texts.min() >= 160
    assert texts.max() <= 240
    assert texts.std(dim=0).min() > 5  # each image and each channel is changed independently
    torch.testing.assert_close(jitter_colours(whole, 0.0, np.random.default_rng(0)), whole)
