"""Write a selling line for an image, with an encoder's image tower and the language head trained with it."""

from typing import Any

import numpy as np
import torch

from feature_repo.errors import InvalidInputError
from feature_repo.image_geometry import Geometry
from producers.encoders import clip_family
from producers.encoders.checkpoint import load, resolve_checkpoint
from producers.encoders.encoder import Pixels
from producers.encoders.training import language
from producers.encoders.training.towers import Towers

BATCH_SIZE = 128
"""Images whose lines are written at once."""


class Captioner:
    """Writes one selling line for each image; `open_captioner` loads a captioner from a checkpoint."""

    def __init__(self, encoder: clip_family.DualEncoder, geometry: Geometry, head: language.LanguageHead) -> None:
        """Combine an encoder and its language head.

        Args:
            encoder: the encoder whose image tower and tokenizer are used.
            geometry: how to resize images for `write`.
            head: the language head that was trained with that encoder; it is moved to the encoder's device.
        """
        self.version = encoder.version
        """The version of the encoder, `name@fingerprint`; the fingerprint covers the files of the head too."""
        self.geometry = geometry
        """How to resize images for `write`."""
        self._tokenizer: Any = encoder.tokenizer
        self._towers = Towers(encoder.model, masked=True).eval()
        self._head = head.to(encoder.device)
        self._scale, self._shift, self._dtype = encoder.scale, encoder.shift, encoder.dtype

    def write(self, pixels: Pixels) -> list[str]:
        """Return one line per image, in order; "" where the head writes nothing. No images give no lines.

        The most likely token is chosen each time; nothing is drawn at random. A line that gets longer than the head was
        trained for is cut.

        Args:
            pixels: images resized by `geometry`, uint8 [n, height, width, 3], in RGB.
        """
        lines: list[str] = []
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = torch.from_numpy(np.ascontiguousarray(pixels[start : start + BATCH_SIZE])).to(self._scale.device)
            with torch.inference_mode():
                values = (batch.permute(0, 3, 1, 2).float() * self._scale + self._shift).to(self._dtype)
                written = self._head.generate(self._towers.encode_images(values).tokens.float())
            lines += [language.detokenize(self._tokenizer, tokens, self._head.begins) for tokens in written]
        return lines


def open_captioner(path_or_name: str, *, device: str | None = None) -> Captioner:
    """Load the captioner of a checkpoint directory or hub name.

    Args:
        path_or_name: a checkpoint directory if one of that path exists, else a hub name.
        device: where the model runs, such as "cpu" or "cuda:0"; None takes the first GPU, or the CPU if there is none.

    Raises:
        NotFoundError: there is no such checkpoint, or it has no language head.
        InvalidInputError: it is not an image-text checkpoint that `producers.encoders.load` accepts, or its image
            processor does more than resize and crop.
        UnavailableError: there is no such directory, the hub cannot be reached, and nothing was downloaded earlier.
        CorruptDataError: a file of the checkpoint or of the head is missing or unreadable.
    """
    head = language.load_head(resolve_checkpoint(path_or_name))
    encoder = load(path_or_name, device=device)
    if not isinstance(encoder, clip_family.DualEncoder) or encoder.geometry is None:
        raise InvalidInputError(
            f"{path_or_name}: its images cannot be resized for a language head; train another encoder"
        )
    return Captioner(encoder, encoder.geometry, head)
