"""The text encoder of a small model tells pictures apart before the UNet learns; and the weights of noise levels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from producers.encoders.training.process_group import open_process_group
from producers.text_to_image.denoising import MIN_WEIGHT, compute_loss_weights
from producers.text_to_image.initial_model import build_pipeline, build_scheduler
from producers.text_to_image.pairs import PicturePairs
from producers.text_to_image.sentences import encode_sentences
from producers.text_to_image.text_pretraining import train_contrastively
from producers.text_to_image.training_loop import TrainingContext, TrainingSettings
from tests.producers.text_to_image.tiny_pipeline import SIZES

COLOURS = {"pink": (246, 158, 186), "rose": (246, 158, 186), "navy": (46, 66, 124), "blue": (46, 66, 124)}
"""Two words for each of two colours."""


def test_words_for_the_same_pictures_get_similar_states(tmp_path: Path) -> None:
    texts = [f"a {word} romper" for word in COLOURS] * 16
    pixels = np.empty((len(texts), 16, 16, 3), np.uint8)
    pixels[:] = np.array(list(COLOURS.values()) * 16)[:, None, None]
    pairs = PicturePairs([tmp_path / f"{row}.png" for row in range(len(texts))], texts, np.arange(len(texts)))
    pipeline = build_pipeline(texts, SIZES, seed=0)

    def compare(one: str, other: str) -> float:
        states = encode_sentences(pipeline, [f"a {one} romper", f"a {other} romper"]).mean(dim=1)
        return float(functional.cosine_similarity(states[0], states[1], dim=0))

    settings = TrainingSettings(steps=60, batch=32, learning_rate=5e-3)
    device = torch.device("cpu")
    with open_process_group(device) as group:
        context = TrainingContext(group, device, tmp_path / "state", "identity")
        result = train_contrastively(pipeline, pairs, pixels, settings, context)
    with torch.inference_mode():
        same, different = compare("pink", "rose"), compare("pink", "navy")
    assert result.loss < np.log(32) - 0.5  # better than a guess among 32 sentences
    assert same > different + 0.2


@pytest.mark.parametrize("predicts_velocity", [False, True])
def test_weights_of_noise_levels_are_those_of_min_snr(predicts_velocity: bool) -> None:
    """Hang and others, arXiv 2303.09556, section 3.4: min(snr, 5) / snr, and min(snr, 5) / (snr + 1) for velocities."""
    alphas = build_scheduler().alphas_cumprod.double()
    weights = compute_loss_weights(alphas, 5.0, predicts_velocity=predicts_velocity)
    assert float(weights.mean()) == pytest.approx(1, abs=1e-6)
    assert (weights > 0).all()
    snr = (alphas / (1 - alphas))[:-1]  # the last level is pure noise
    expected = snr.clamp_max(5) / (snr + 1 if predicts_velocity else snr)
    far = weights[:-1] > 2 * MIN_WEIGHT
    ratios = weights[:-1][far] / expected[far]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def test_without_a_limit_all_noise_levels_weigh_the_same() -> None:
    weights = compute_loss_weights(build_scheduler().alphas_cumprod, None, predicts_velocity=True)
    assert (weights == 1).all()
