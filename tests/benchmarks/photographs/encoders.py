"""Encoders trained without one fold, and the vectors of all products by them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.images.decoding import Source
from producers.embeddings.output_store import open_outputs
from producers.encoders import load
from producers.encoders.assembled.assemble import assemble, encode_images, encode_titles
from producers.encoders.assembled.encoder import AssembledEncoder
from producers.encoders.encoder import Outputs, Vectors
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.recall import encode_pairs
from producers.encoders.train import train
from tests.benchmarks.photographs.sets import PhotographSet

IMAGE_TOWER, TEXT_TOWER = "efficientnet-lite0", "minilm"
PAIRS = 40_000
"""Pairs that the small encoder learns from, the default of `produce encoder`."""


SECONDS_FILE = "cpu_seconds"
"""File of a checkpoint with the CPU seconds of its training; it is written last."""


@dataclass(frozen=True)
class TrainedVectors:
    """Unit vectors of pictures and of texts by one encoder, and the CPU seconds of its training."""

    image: Vectors
    """float32 [n, dim]; NaN where a picture is unusable."""
    text: Vectors
    """float32 [m, dim]."""
    seconds: float
    """CPU seconds of the training, without frozen towers."""
    outputs: tuple[Outputs, Outputs] | None = None
    """Outputs of the frozen towers, float16 [n, width] and [m, width]; None for the small encoder."""


Train = Callable[[PhotographSet, NDArray[np.bool_], Sequence[Path], Sequence[str], Path], TrainedVectors]
"""A set, which of its products to train on [n], pictures and texts to encode, and a folder for the checkpoint.

A checkpoint of an earlier call in the folder is used again.
"""


def train_small(
    products: PhotographSet, fitted: NDArray[np.bool_], images: Sequence[Path], texts: Sequence[str], work: Path
) -> TrainedVectors:
    """Train the small encoder from scratch."""
    folder = work / "small"
    seconds = _train_once(
        folder,
        lambda: train(*_select(products, fitted), folder, pairs_seen=PAIRS, seed=0, progress=_ignore),
    )
    encoder = load(str(folder), device="cpu")
    image = np.full((len(images), encoder.dim), np.nan, np.float32)
    with open_decoding_pool(1) as pool:
        vectors, _, usable = encode_pairs(encoder, ["x"] * len(images), images, pool)
    image[usable] = vectors
    return TrainedVectors(image, encoder.encode_texts(texts), seconds)


def train_assembled(
    products: PhotographSet,
    fitted: NDArray[np.bool_],
    images: Sequence[Path],
    texts: Sequence[str],
    work: Path,
    *,
    text_tower: str = TEXT_TOWER,
) -> TrainedVectors:
    """Train heads for frozen towers; the towers' outputs are kept in the parent folder of `work`."""
    folder = work / "assembled"
    towers = {"image_tower": IMAGE_TOWER, "text_tower": text_tower, "head": "linear"}
    with open_outputs(work.parent / "outputs") as store:
        seconds = _train_once(
            folder,
            lambda: assemble(*_select(products, fitted), folder, store, **towers, dim=128, seed=0, progress=_ignore),
        )
        encoder = load(str(folder), device="cpu")
        assert isinstance(encoder, AssembledEncoder)
        image_outputs, _ = encode_images(images, encoder, store, lambda done, total: None)
        text_outputs, _ = encode_titles(texts, encoder, store, lambda done, total: None)
    image, text = encoder.project_images(image_outputs), encoder.project_texts(texts, text_outputs)
    return TrainedVectors(image, text, seconds, (image_outputs, text_outputs))


def _train_once(folder: Path, run: Callable[[], object]) -> float:
    """Run a training unless its checkpoint is complete, and return the CPU seconds that it took or had taken."""
    file = folder / SECONDS_FILE
    if not file.is_file():
        start = time.process_time()
        run()
        file.write_text(f"{time.process_time() - start:.1f}")
    return float(file.read_text())


def _select(products: PhotographSet, fitted: NDArray[np.bool_]) -> tuple[list[str], list[Source]]:
    """Return titles and pictures of the products to train on."""
    rows = np.flatnonzero(fitted)
    return [products.titles[row] for row in rows], [products.images[row] for row in rows]


def _ignore(stage: str, done: int, total: int) -> None:
    """Show no progress."""


train_assembled_with_words = partial(train_assembled, text_tower="none")
"""The words of the shop without a text tower, as for titles that no text tower at hand reads."""
