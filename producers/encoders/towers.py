"""Both towers as ONNX files, checked against torch with onnxruntime. Needs the extra `export`.

Both give unit rows. The image tower reads pictures as the encoder's geometry cuts them and scales and normalises them
itself: nothing of the preprocessing but the cutting is left to whoever calls it.

    image_tower   pixels uint8 [n, height, width, 3]                        -> vectors float32 [n, dim]
    text_tower    input_ids, attention_mask int64 [n, length]               -> vectors float32 [n, dim]
                  (no mask where the family reads padding as any word, SigLIP: length is fixed there)
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from feature_repo.errors import VitrineError
from producers.encoders.batches import normalize_rows
from producers.encoders.clip_family import DualEncoder
from producers.encoders.encoder import Pixels
from producers.encoders.tokens import tokenize

LEAST_COSINE = 0.9999
IMAGE, TEXT = "image_tower", "text_tower"
OUTPUT = "vectors"
INSTALL = "pip install 'vitrine[export]'"
AT_ONCE = 7
"""Probes of a batch when checked: neither the number nor the length that the tower was traced with."""

Inputs = Mapping[str, NDArray[Any]]


class Tower(torch.nn.Module):
    """One tower of an encoder, from what is sent to unit rows."""

    def __init__(self, name: str, encoder: DualEncoder, probes: Sequence[Inputs]) -> None:
        super().__init__()
        self.name = name
        self.model = encoder.model
        self.features = encoder.image_tower if name == IMAGE else encoder.text_tower
        self.probes = probes
        """Batches of what it is checked with."""
        self.dim = encoder.dim
        self.fixed_length = name == TEXT and encoder.unmasked

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return normalize_rows(self.features(*inputs))

    def dynamic(self) -> dict[str, dict[int, str]]:
        """Axes of any length, by input and output."""
        axes = {0: "n"} if self.name == IMAGE or self.fixed_length else {0: "n", 1: "length"}
        return dict.fromkeys(self.probes[0], axes) | {OUTPUT: {0: "n"}}


@dataclass(frozen=True)
class TowerCheck:
    """A tower that was written, and how far it is from torch's."""

    name: str
    probes: int
    cosine: float
    """The lowest of them all."""


def build_towers(encoder: DualEncoder, pixels: Pixels, titles: Sequence[str]) -> list[Tower]:
    """Both towers of an encoder on the CPU, with the pictures [n, height, width, 3] and titles to check them with."""
    tokens = tokenize(encoder.tokenizer, titles, encoder.text_length)
    names = ("input_ids",) if encoder.unmasked else ("input_ids", "attention_mask")
    rows = np.arange(len(titles))
    texts = [
        dict(zip(names, encoder.text_inputs(tokens, rows[start : start + AT_ONCE]), strict=True))
        for start in range(0, len(rows), AT_ONCE)
    ]
    images = [{"pixels": pixels[start : start + AT_ONCE]} for start in range(0, len(pixels), AT_ONCE)]
    return [Tower(IMAGE, encoder, images), Tower(TEXT, encoder, texts)]


def export_tower(tower: Tower, file: Path) -> TowerCheck:
    """Write a tower as ONNX, its batch (and a masked text's length) of any size, and hold it against torch.

    Raises:
        VitrineError: the extra is not installed, the tower cannot be exported, or its vectors are not torch's.
    """
    onnxruntime = import_onnxruntime()
    # Traced with two rows of another length than any probe's: what a trace takes for fixed shows when it is checked.
    traced = [torch.from_numpy(np.ascontiguousarray(_traced(tower, each))) for each in tower.probes[0].values()]
    with _quiet(), torch.no_grad():
        try:
            torch.onnx.export(
                tower.eval(),
                tuple(traced),
                str(file),
                input_names=list(tower.probes[0]),
                output_names=[OUTPUT],
                dynamic_axes=tower.dynamic(),
                dynamo=False,
            )
        except Exception as error:
            raise VitrineError(f"{tower.name} cannot be exported: {str(error).strip().splitlines()[0]}") from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    lowest, probes = 1.0, 0
    for inputs in tower.probes:
        with torch.no_grad():
            wanted = tower(*map(torch.from_numpy, inputs.values())).numpy()
        try:
            (got,) = session.run([OUTPUT], dict(inputs))
        except Exception as error:
            raise VitrineError(f"{tower.name}: onnxruntime refuses {file}: {error}") from error
        cosine = (wanted * got).sum(axis=1) / (np.linalg.norm(wanted, axis=1) * np.linalg.norm(got, axis=1))
        lowest, probes = min(lowest, float(np.nan_to_num(cosine, nan=-1).min())), probes + len(wanted)
    if lowest < LEAST_COSINE:
        raise VitrineError(
            f"{tower.name}: its vectors are not torch's, cosine {lowest:.6f} on the worst of {probes} probes, "
            f"at least {LEAST_COSINE} is wanted; {file} is not to be used"
        )
    return TowerCheck(tower.name, probes, lowest)


def import_onnxruntime() -> Any:
    """onnxruntime.

    Raises:
        VitrineError: it or onnx is missing; says what to install.
    """
    try:
        import onnx  # noqa: F401  # torch writes with it
        import onnxruntime
    except ImportError as error:
        raise VitrineError(f"{error.name} is not installed, and the export needs it; run: {INSTALL}") from error
    return onnxruntime


def _traced(tower: Tower, probe: NDArray[Any]) -> NDArray[Any]:
    """Two rows; texts a little shorter than the probe's where any length will do."""
    rows = np.repeat(probe[:1], 2, axis=0)
    if tower.name == IMAGE or tower.fixed_length or rows.shape[1] < 3:
        return rows
    return rows[:, :-1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on what a trace may take for fixed: that is checked."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
