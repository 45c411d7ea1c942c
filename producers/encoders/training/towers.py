"""The image tower and the text tower of any supported family, behind one interface."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.encoders.training.pairs import Preprocessor, TrainingPairs

PAIRS_PER_FORWARD = 256
"""Pairs that `encode_pairs` encodes at once."""
MAX_LOGIT_SCALE = 100.0
"""Largest factor of the cosines."""
INITIAL_LOGIT_SCALE = 14.0
"""Factor of the cosines at the start, for a model that has none of its own."""


@dataclass(frozen=True)
class ImageFeatures:
    """The outputs of the image tower for n images."""

    vectors: torch.Tensor
    """Unit vectors of the space shared with texts, float32 [n, d]."""
    tokens: torch.Tensor
    """Last hidden states, one for each patch or region of an image, float [n, tokens, width]."""

    @property
    def mean_token(self) -> torch.Tensor:
        """Mean over the tokens of each image, float [n, width]."""
        return self.tokens.mean(dim=1)


class Towers(nn.Module):
    """An image tower and a text tower: a model of one of `clip_family.FAMILIES`, and the factor of its cosines."""

    def __init__(self, model: Any, *, masked: bool) -> None:
        """Wrap a model.

        Args:
            model: the Transformers model; not copied.
            masked: whether the text tower is given the attention mask. False for a model that reads the padding as
                words, as SigLIP does.
        """
        super().__init__()
        self.model = model
        self.masked = masked
        if not hasattr(model, "logit_scale"):  # BLIP's retrieval model has none
            self.own_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    @property
    def scale(self) -> torch.Tensor:
        """The factor of the cosines before the softmax: a scalar tensor that is trained, at most MAX_LOGIT_SCALE."""
        log_scale = self.model.logit_scale if hasattr(self.model, "logit_scale") else self.own_scale
        return log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        """Return the vectors and tokens of images, in their order.

        Args:
            pixels: preprocessed images, float32 [n, 3, height, width].
        """
        output = self.model.get_image_features(pixel_values=pixels)
        tokens = output.last_hidden_state
        if tokens.dim() == 4:  # a convolutional tower returns a map [n, width, height, width]
            tokens = tokens.flatten(2).transpose(1, 2)
        return ImageFeatures(functional.normalize(output.pooler_output.float()), tokens)

    def encode_texts(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of texts, float32 [n, d], in their order.

        Args:
            tokens: token ids, int64 [n, length].
            mask: 1 where there is a token, 0 in the padding, int64 [n, length]. Not used if `masked` is False.
        """
        inputs = {"input_ids": tokens} | ({"attention_mask": mask} if self.masked else {})
        return functional.normalize(self.model.get_text_features(**inputs).pooler_output.float())

    def measure_token_width(self, pixels: torch.Tensor) -> int:
        """Return the width of the image tokens, found by a forward pass over some images. No weight is changed.

        Args:
            pixels: preprocessed images, at least one, float32 [n, 3, height, width].
        """
        was_training = self.training
        self.eval()
        with torch.no_grad():
            width = int(self.encode_images(pixels).tokens.shape[-1])
        self.train(was_training)
        return width


def encode_pairs(
    towers: Towers, pairs: TrainingPairs, preprocessor: Preprocessor, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the vectors of uncropped images and of unmasked titles.

    The towers run in evaluation mode and are put back into their former mode.

    Args:
        towers: the towers.
        pairs: all pairs.
        preprocessor: the preprocessing of the towers' checkpoint.
        rows: the rows of `pairs` to encode, at least one.

    Returns:
        The unit vectors of the images, and those of the titles, float32 [rows, d] each, in the order of `rows`.
    """
    device = preprocessor.scale.device
    images, texts = [], []
    was_training = towers.training
    towers.eval()
    with torch.no_grad():
        for start in range(0, len(rows), PAIRS_PER_FORWARD):
            part = rows[start : start + PAIRS_PER_FORWARD]
            images.append(towers.encode_images(preprocessor.prepare_images(pairs, part)).vectors.cpu().numpy())
            tokens, mask = (torch.from_numpy(values[part]).to(device) for values in (pairs.tokens, pairs.mask))
            texts.append(towers.encode_texts(tokens, mask).cpu().numpy())
    towers.train(was_training)
    return np.concatenate(images), np.concatenate(texts)
