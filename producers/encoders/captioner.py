"""Pictures to selling lines, by an encoder's image tower and the language head that was trained with it."""

from typing import Any

import numpy as np
import torch

from feature_repo.errors import VitrineError
from producers.encoders import clip_family
from producers.encoders.checkpoint import load, resolve_checkpoint
from producers.encoders.encoder import Pixels
from producers.encoders.geometry import Geometry
from producers.encoders.training import language
from producers.encoders.training.towers import Towers

BATCH_SIZE = 128


class Captioner:
    """Open for writing."""

    def __init__(self, encoder: clip_family.DualEncoder, geometry: Geometry, head: language.LanguageHead) -> None:
        self.version = encoder.version
        """The encoder's: its fingerprint covers the head's files too."""
        self.geometry = geometry
        self._tokenizer: Any = encoder.tokenizer
        self._towers = Towers(encoder.model, masked=True).eval()
        self._head = head.to(encoder.device)
        self._prepare = (encoder.scale, encoder.shift, encoder.dtype)

    def write(self, pixels: Pixels) -> list[str]:
        """A line for each picture cut by `geometry`, uint8 [n, height, width, 3]; "" where nothing comes to mind."""
        lines: list[str] = []
        scale, shift, dtype = self._prepare
        for start in range(0, len(pixels), BATCH_SIZE):
            part = torch.from_numpy(np.ascontiguousarray(pixels[start : start + BATCH_SIZE])).to(scale.device)
            with torch.inference_mode():
                values = (part.permute(0, 3, 1, 2).float() * scale + shift).to(dtype)
                written = self._head.generate(self._towers.encode_images(values).tokens.float())
            lines += [language.detokenize(self._tokenizer, tokens, self._head.begins) for tokens in written]
        return lines


def open_captioner(path_or_name: str, *, device: str | None = None) -> Captioner:
    """The captioner of a checkpoint directory or hub name.

    Raises:
        VitrineError: it has no language head, or is no image-text checkpoint that `load` opens.
    """
    head = language.load_head(resolve_checkpoint(path_or_name))
    encoder = load(path_or_name, device=device)
    if not isinstance(encoder, clip_family.DualEncoder) or encoder.geometry is None:
        raise VitrineError(f"{path_or_name}: its pictures cannot be cut for a language head; train another encoder")
    return Captioner(encoder, encoder.geometry, head)
