"""Fine-tuning a checkpoint: validation, early stopping, rates by layer, and the time that a training is given."""

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from feature_repo.errors import VitrineError
from producers.encoders.train import TrainingSummary, train
from producers.encoders.training import training_state, validation
from producers.encoders.training.initial_model import load_model
from producers.encoders.training.layer_depths import measure_depths
from producers.encoders.training.loop import has_converged
from producers.encoders.training.recipe import Recipe
from producers.encoders.training.time_budget import choose_pairs_seen
from producers.encoders.training.validation import hold_out_designs
from tests.producers.encoders import checkpoints

COLOURS = {"红色": (220, 30, 30), "蓝": (40, 60, 220), "男童": (30, 180, 60), "鞋": (15, 15, 15)}
PRODUCTS = 640
GENTLE = Recipe(objectives=("contrastive",), batch=32, learning_rate=3e-3, layer_decay=0.9)


class KilledError(Exception):
    """Stands for a process that is killed in the middle of a step."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shop() -> tuple[list[str], list[bytes], list[str]]:
    """Images of one colour each, titles that name it, and designs of four products."""
    chance = np.random.default_rng(0)
    titles, images, designs = [], [], []
    for number in range(PRODUCTS):
        design = number // 4
        name = list(COLOURS)[design % len(COLOURS)]
        pixels = np.clip(np.array(COLOURS[name]) + chance.integers(-20, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        titles.append(f"{name}连衣裙"[: 2 + number % 4])
        images.append(_encode_png(pixels))
        designs.append(f"design {design}")
    return titles, images, designs


def _encode_png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def tuned(
    shop: tuple[list[str], list[bytes], list[str]], folder: Path, start: Path, **options: object
) -> TrainingSummary:
    titles, images, designs = shop
    arguments: dict = {"pairs_seen": 640, "seed": 1, "progress": lambda *_: None, "recipe": GENTLE} | options
    summary = train(titles, images, folder, checkpoint=str(start), designs=designs, **arguments)
    assert summary is not None
    return summary


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("from")
    checkpoints.clip(folder)
    return folder


def test_a_better_checkpoint_is_saved_with_its_recall_and_a_worse_one_is_not(shop, start: Path, tmp_path: Path) -> None:
    summary = tuned(shop, tmp_path / "better", start)
    assert summary.validated >= validation.MIN_PAIRS
    assert summary.kept == PRODUCTS - summary.validated
    assert max(summary.recalls[1:]) > summary.recalls[0] + 0.1
    assert re.search(r"recall of \d+ validation products: 0\.\d+ before, 0\.\d+ after", str(summary))

    wild = replace(GENTLE, learning_rate=10.0)  # one step is enough to lose what was learned
    with pytest.raises(VitrineError, match=r"nothing was saved.*products 0\.\d+ before and 0\.\d+ after") as caught:
        tuned(shop, tmp_path / "worse", tmp_path / "better", recipe=wild, pairs_seen=320)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "worse").glob("*"))


@pytest.mark.slow
def test_a_training_that_no_longer_improves_stops_with_the_best_weights(shop, start: Path, tmp_path: Path) -> None:
    first = tuned(shop, tmp_path / "first", start)
    idle = replace(GENTLE, learning_rate=1e-9)  # changes nothing, so that no measurement is higher than the first
    summary = tuned(shop, tmp_path / "second", tmp_path / "first", recipe=idle)
    assert summary.steps == 2 * (1 + validation.PATIENCE)  # of 20
    assert len(summary.recalls) == 2 + validation.PATIENCE
    assert max(summary.recalls) == pytest.approx(max(first.recalls[1:]), abs=0.02)


@pytest.mark.slow
def test_a_resumed_fine_tuning_gives_the_recalls_and_weights_of_an_uninterrupted_one(
    shop, start: Path, tmp_path: Path
) -> None:
    from tests.producers.encoders.test_training import assert_equal

    recipe = replace(GENTLE, save_every=3)

    def kill_at_8(what: str, done: int, total: int) -> None:
        if what == "train encoder" and done == 8:
            raise KilledError

    whole = tuned(shop, tmp_path / "whole", start, recipe=recipe, pairs_seen=320)
    with pytest.raises(KilledError):
        tuned(shop, tmp_path / "resumed", start, recipe=recipe, pairs_seen=320, progress=kill_at_8)
    resumed = tuned(shop, tmp_path / "resumed", start, recipe=recipe, pairs_seen=320)
    assert (resumed.resumed_at, resumed.recalls) == (6, whole.recalls)
    assert_equal(tmp_path / "whole", tmp_path / "resumed", 0)


def test_a_shop_too_small_to_validate_on_and_a_small_batch_on_a_long_schedule_are_named(
    shop, start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    titles, images, designs = (part[:40] for part in shop)
    train(
        titles, images, tmp_path, checkpoint=str(start), designs=designs, pairs_seen=160, seed=0,
        progress=lambda *_: None, recipe=replace(GENTLE, batch=16),
    )  # fmt: skip
    assert "40 products are too few to hold any out" in caplog.text
    assert "16 pairs are compared at a time, over 4.0 passes" in caplog.text


@pytest.mark.slow
def test_the_steps_of_a_given_time_stay_the_same_when_the_training_is_continued(shop, tmp_path: Path) -> None:
    titles, images, _ = (part[:128] for part in shop)
    recipe = Recipe(objectives=("contrastive",), batch=4, save_every=2)
    options: dict = {"pairs_seen": None, "minutes": 0.5, "seed": 0, "recipe": recipe}
    seen = []

    def kill_at_3(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        if what == "train encoder" and done == 3:
            raise KilledError

    for _ in range(2):
        with pytest.raises(KilledError):
            train(titles, images, tmp_path, progress=kill_at_3, **options)
    steps = [(done, total) for what, done, total in seen if what == "train encoder"]
    total = steps[0][1]
    assert total > 3
    assert steps == [(1, total), (2, total), (3, total), (3, total)]
    training_state.remove_state(tmp_path)
    assert not (tmp_path / training_state.STEPS_FILE).exists()


def test_the_number_of_pairs_grows_with_the_catalogue() -> None:
    counts = [choose_pairs_seen(None, products, is_fine_tuning=False) for products in (100, 8_000, 17_000)]
    assert counts == [40_000, 40_000, 85_000]
    assert choose_pairs_seen(None, 17_000, is_fine_tuning=True) == 34_000
    assert choose_pairs_seen(7, 17_000, is_fine_tuning=True) == 7


def test_a_training_stops_after_measurements_without_a_higher_recall() -> None:
    assert not has_converged([0.9, 0.1, 0.2, 0.3, 0.4])  # the first is that before the training
    assert not has_converged([0.1, 0.4, 0.3, 0.3])
    assert has_converged([0.1, 0.4, 0.3, 0.3, 0.4])


@given(st.lists(st.integers(0, 300), min_size=0, max_size=3000))
def test_whole_designs_are_held_out(designs: list[int]) -> None:
    held_out = hold_out_designs(designs, [False] * len(designs))
    if held_out is not None:
        out = {designs[row] for row in held_out.rows}
        assert [row for row, design in enumerate(designs) if design in out] == held_out.rows.tolist()
        assert validation.MIN_PAIRS <= len(held_out.rows) <= validation.MAX_PAIRS


def test_about_a_tenth_of_the_designs_is_held_out_and_a_design_stays_so() -> None:
    held_out, again = (hold_out_designs(range(products), [False] * products) for products in (8_000, 9_000))
    assert held_out is not None
    assert again is not None
    assert len(held_out.rows) == 800
    assert len(np.intersect1d(held_out.rows, again.rows)) > 0.9 * len(held_out.rows)
    assert hold_out_designs(range(100), [False] * 100) is None


def test_designs_that_the_checkpoint_was_trained_on_are_held_out_last() -> None:
    is_seen = np.arange(3_000) >= 200
    held_out = hold_out_designs([number // 2 for number in range(3_000)], is_seen.tolist())
    assert held_out is not None
    assert len(held_out.rows) == 300
    assert set(range(200)) < set(held_out.rows.tolist())


@pytest.mark.parametrize("family", ["clip", "chinese_clip", "siglip", "blip"])
def test_lower_layers_of_each_tower_have_lower_rates(family: str, tmp_path: Path) -> None:
    checkpoints.IMAGE_TEXT[family](tmp_path)
    model = load_model(str(tmp_path), torch.device("cpu")).model
    depths = measure_depths([f"model.{name}" for name, _ in model.named_parameters()])
    assert depths["model.logit_scale"] == 0
    for tower in ("text_model", "vision_model"):
        of_tower = {name: depth for name, depth in depths.items() if tower in name}
        assert {depth for name, depth in of_tower.items() if ".embeddings." in name} == {3}
        for layer, depth in ((0, 2), (1, 1)):
            of_layer = {value for name, value in of_tower.items() if re.search(rf"layers?\.{layer}\.", name)}
            assert of_layer == {depth}
