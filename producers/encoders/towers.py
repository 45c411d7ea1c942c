"""Export both towers as ONNX files, and check them against torch with onnxruntime. Needs the extra `export`.

Both towers return unit rows. The image tower takes images resized by the encoder's geometry, and does the scaling and
normalizing itself, so the caller only has to resize.

    image_tower   pixels uint8 [n, height, width, 3]                        -> vectors float32 [n, dim]
    text_tower    input_ids, attention_mask int64 [n, length]               -> vectors float32 [n, dim]
                  (SigLIP has no mask and a fixed length)
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
from feature_repo.exported.files import IMAGE, OUTPUT, TEXT
from producers.encoders.batches import normalize_rows
from producers.encoders.clip_family import DualEncoder
from producers.encoders.encoder import Pixels
from producers.encoders.sentence import SentenceEncoder
from producers.encoders.tokens import tokenize

MIN_COSINE = 0.9999
"""Lowest cosine to torch's vector with which a vector of an exported tower passes the check."""
INSTALL = "pip install 'vitrine[export]'"
PROBES_PER_BATCH = 7
"""Probes per batch of the check: another batch size than the tower is traced with."""

Inputs = Mapping[str, NDArray[Any]]


class Tower(torch.nn.Module):
    """One tower of an encoder as a torch module, from its inputs to unit rows, with inputs to check its export with."""

    def __init__(self, name: str, encoder: DualEncoder | SentenceEncoder, probes: Sequence[Inputs]) -> None:
        """Wrap a tower.

        Args:
            name: IMAGE or TEXT.
            encoder: the encoder, loaded on the CPU.
            probes: batches of inputs to check the exported tower with; at least one. Each maps the name of an input
                (`pixels`, or `input_ids` and perhaps `attention_mask`) to an array of n rows.
        """
        super().__init__()
        self.name = name
        self.model = encoder.model
        self.layers = encoder.layers if isinstance(encoder, SentenceEncoder) else None  # registered, to be exported
        self.features: Any = encoder.text_tower
        if name == IMAGE:
            assert isinstance(encoder, DualEncoder)
            self.features = encoder.image_tower
        self.probes = probes
        self.dim = encoder.dim
        self.has_fixed_length = name != IMAGE and not encoder.has_mask

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return unit rows [n, dim]; a row that cannot be computed is NaN throughout.

        Args:
            inputs: tensors of n rows, in the order of the names in `probes`.
        """
        return normalize_rows(self.features(*inputs))

    def dynamic_axes(self) -> dict[str, dict[int, str]]:
        """Return the axes of variable length, as `torch.onnx.export` takes them.

        Returns:
            For each input, and for OUTPUT, the number of each such axis with a name for it: 0 is `n`, and 1 is `length`
            for texts, except for an encoder that needs texts of a fixed length.
        """
        axes = {0: "n"} if self.name == IMAGE or self.has_fixed_length else {0: "n", 1: "length"}
        return dict.fromkeys(self.probes[0], axes) | {OUTPUT: {0: "n"}}


@dataclass(frozen=True)
class TowerCheck:
    """How close the vectors of one exported tower are to those of torch."""

    name: str
    """IMAGE or TEXT."""
    probes: int
    """Number of images, or of texts, that were compared."""
    cosine: float
    """The lowest cosine over all probes, at least MIN_COSINE; a vector of NaN counts as -1."""


def build_towers(encoder: DualEncoder | SentenceEncoder, pixels: Pixels | None, titles: Sequence[str]) -> list[Tower]:
    """Return the image tower, if its input is given, and the text tower of an encoder, with probes in batches.

    Args:
        encoder: the encoder, loaded on the CPU.
        pixels: RGB images to check the image tower with, resized by the encoder's `geometry`: uint8
            [n, height, width, 3], n > 0. None leaves out the image tower.
        titles: texts to check the text tower with; at least one. Long ones are truncated.
    """
    shaped = encoder.shape_texts(titles) if isinstance(encoder, SentenceEncoder) else titles
    tokens = tokenize(encoder.tokenizer, shaped, encoder.text_length)
    names = ("input_ids", "attention_mask") if encoder.has_mask else ("input_ids",)
    rows = np.arange(len(titles))
    texts = [
        dict(zip(names, encoder.text_inputs(tokens, rows[start : start + PROBES_PER_BATCH]), strict=True))
        for start in range(0, len(rows), PROBES_PER_BATCH)
    ]
    if pixels is None:
        return [Tower(TEXT, encoder, texts)]
    images = [{"pixels": pixels[start : start + PROBES_PER_BATCH]} for start in range(0, len(pixels), PROBES_PER_BATCH)]
    return [Tower(IMAGE, encoder, images), Tower(TEXT, encoder, texts)]


def export_tower(tower: Tower, file: Path) -> TowerCheck:
    """Write a tower as ONNX with a batch of any size, and compare its vectors with torch's on every probe.

    Texts may have any length too, except for an encoder without a mask. The file exists even if the check fails.

    Args:
        tower: from `build_towers`.
        file: the ONNX file, in an existing folder; an existing file is replaced.

    Raises:
        VitrineError: the extra `export` is not installed, torch cannot export the tower, onnxruntime cannot run it, or
            a cosine is below MIN_COSINE.
    """
    onnxruntime = import_onnxruntime()
    # Traced with other sizes than any probe has: a size that the trace wrongly fixes fails the check.
    example = [torch.from_numpy(np.ascontiguousarray(_trace_input(tower, each))) for each in tower.probes[0].values()]
    with _quiet_exporter(), torch.no_grad():
        try:
            torch.onnx.export(
                tower.eval(),
                tuple(example),
                str(file),
                input_names=list(tower.probes[0]),
                output_names=[OUTPUT],
                dynamic_axes=tower.dynamic_axes(),
                dynamo=False,
            )
        except Exception as error:
            raise VitrineError(f"{tower.name} cannot be exported: {str(error).strip().splitlines()[0]}") from error
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    lowest, probes = 1.0, 0
    for inputs in tower.probes:
        with torch.no_grad():
            expected = tower(*map(torch.from_numpy, inputs.values())).numpy()
        try:
            (actual,) = session.run([OUTPUT], dict(inputs))
        except Exception as error:
            raise VitrineError(f"{tower.name}: onnxruntime cannot run {file}: {error}") from error
        lowest, probes = min(lowest, compute_lowest_cosine(expected, actual)), probes + len(expected)
    if lowest < MIN_COSINE:
        raise VitrineError(
            f"{tower.name}: its vectors differ from torch's: cosine {lowest:.6f} on the worst of {probes} probes, "
            f"expected at least {MIN_COSINE}; do not use {file}"
        )
    return TowerCheck(tower.name, probes, lowest)


def compute_lowest_cosine(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Return the lowest cosine of two matrices, row by row; a row that is NaN in one of them counts as -1."""
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(actual, axis=1)
    cosine = (expected * actual).sum(axis=1) / norms
    return float(np.nan_to_num(cosine, nan=-1).min())


def import_onnxruntime() -> Any:
    """Return the module onnxruntime.

    Raises:
        VitrineError: onnxruntime or onnx is missing; the message has the install command.
    """
    try:
        import onnx  # noqa: F401  # torch writes files with it
        import onnxruntime
    except ImportError as error:
        raise VitrineError(f"{error.name} is not installed, and the export needs it; run: {INSTALL}") from error
    return onnxruntime


def _trace_input(tower: Tower, probe: NDArray[Any]) -> NDArray[Any]:
    """Return two rows of a probe; texts of variable length are one token shorter than the probe."""
    rows = np.repeat(probe[:1], 2, axis=0)
    if tower.name == IMAGE or tower.has_fixed_length or rows.shape[1] < 3:
        return rows
    return rows[:, :-1]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's warnings about sizes that a trace may fix; the check covers them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
