"""A pipeline of a few thousand random weights, of Stable Diffusion's classes: it opens and generates in a second."""

from pathlib import Path

from producers.text_to_image.checkpoint import save_pipeline
from producers.text_to_image.initial_model import ModelSizes, build_pipeline

SIZES = ModelSizes(
    side=16,
    vae_channels=(8, 8),
    unet_channels=(16, 32),
    text_width=16,
    text_layers=1,
    text_length=16,
    vocabulary=520,
)
SENTENCES = ("a pink romper", "a navy hat with stripes", "a green dress with dots")


def save_tiny_pipeline(folder: Path, seed: int = 0, sizes: ModelSizes = SIZES) -> Path:
    """Save a tiny pipeline in a new folder, and return the folder."""
    save_pipeline(build_pipeline(SENTENCES, sizes, seed=seed), folder)
    return folder
