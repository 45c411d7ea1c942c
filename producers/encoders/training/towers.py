"""Two towers of any family, seen as one: vectors of the common space, and the image's own tokens beside them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.encoders.training.pairs import Pairs, Preparation

AT_ONCE = 256
MAX_SCALE = 100.0
FIRST_SCALE = 14.0


@dataclass(frozen=True)
class Seen:
    """Pictures as the image tower sees them."""

    vectors: torch.Tensor
    """Of unit length [n, d]."""
    tokens: torch.Tensor
    """[n, places, width]: what a text can be read beside."""

    @property
    def mean(self) -> torch.Tensor:
        """[n, width]."""
        return self.tokens.mean(dim=1)


class Towers(nn.Module):
    """A model of one of `dual.FAMILIES` and the scale of its cosines."""

    def __init__(self, model: Any, *, masked: bool) -> None:
        super().__init__()
        self.model = model
        self.masked = masked
        if not hasattr(model, "logit_scale"):  # BLIP's retrieval model keeps none
            self.own_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    @property
    def scale(self) -> torch.Tensor:
        """By which cosines are multiplied before the softmax."""
        stored = self.model.logit_scale if hasattr(self.model, "logit_scale") else self.own_scale
        return stored.exp().clamp(max=MAX_SCALE)

    def images(self, pixels: torch.Tensor) -> Seen:
        """Pictures prepared as the tower wants them, float32 [n, 3, h, w]."""
        seen = self.model.get_image_features(pixel_values=pixels)
        tokens = seen.last_hidden_state
        if tokens.dim() == 4:  # a convolutional tower's map [n, width, h, w]
            tokens = tokens.flatten(2).transpose(1, 2)
        return Seen(functional.normalize(seen.pooler_output.float()), tokens)

    def texts(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Unit vectors [n, d] of token ids and mask [n, length]."""
        inputs = {"input_ids": tokens} | ({"attention_mask": mask} if self.masked else {})
        return functional.normalize(self.model.get_text_features(**inputs).pooler_output.float())

    def width(self, pixels: torch.Tensor) -> int:
        """Of the image's tokens, told by a look at some pictures."""
        training = self.training
        self.eval()
        with torch.no_grad():
            width = int(self.images(pixels).tokens.shape[-1])
        self.train(training)
        return width


def vectors_of(
    towers: Towers, pairs: Pairs, preparation: Preparation, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors of whole pictures and of titles, as the trained towers would give them [rows, d] each."""
    device = preparation.scale.device
    images, texts = [], []
    training = towers.training
    towers.eval()
    with torch.no_grad():
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            images.append(towers.images(preparation.whole(pairs, part)).vectors.cpu().numpy())
            tokens, mask = (torch.from_numpy(values[part]).to(device) for values in (pairs.tokens, pairs.mask))
            texts.append(towers.texts(tokens, mask).cpu().numpy())
    towers.train(training)
    return np.concatenate(images), np.concatenate(texts)
