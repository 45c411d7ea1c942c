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
MAX_LOGIT_SCALE = 100.0
INITIAL_LOGIT_SCALE = 14.0


@dataclass(frozen=True)
class ImageFeatures:
    """The outputs of the image tower for n images."""

    vectors: torch.Tensor
    """Unit vectors of the space shared with texts [n, d]."""
    tokens: torch.Tensor
    """Last hidden states, one for each patch or region [n, tokens, width]."""

    @property
    def mean_token(self) -> torch.Tensor:
        """Mean over the tokens [n, width]."""
        return self.tokens.mean(dim=1)


class Towers(nn.Module):
    """A model of one of `clip_family.FAMILIES` and the factor of its cosines."""

    def __init__(self, model: Any, *, masked: bool) -> None:
        """Wrap a model.

        Args:
            model: The Transformers model.
            masked: Whether the text tower is given the attention mask. SigLIP reads the padding as words.
        """
        super().__init__()
        self.model = model
        self.masked = masked
        if not hasattr(model, "logit_scale"):  # BLIP's retrieval model has none
            self.own_scale = nn.Parameter(torch.tensor(math.log(INITIAL_LOGIT_SCALE)))

    @property
    def scale(self) -> torch.Tensor:
        """The factor of the cosines before the softmax, at most MAX_LOGIT_SCALE."""
        log_scale = self.model.logit_scale if hasattr(self.model, "logit_scale") else self.own_scale
        return log_scale.exp().clamp(max=MAX_LOGIT_SCALE)

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        """Return the features of preprocessed images, float32 [n, 3, height, width]."""
        output = self.model.get_image_features(pixel_values=pixels)
        tokens = output.last_hidden_state
        if tokens.dim() == 4:  # a convolutional tower returns a map [n, width, height, width]
            tokens = tokens.flatten(2).transpose(1, 2)
        return ImageFeatures(functional.normalize(output.pooler_output.float()), tokens)

    def encode_texts(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return unit vectors, float32 [n, d], of token ids and their mask [n, length]."""
        inputs = {"input_ids": tokens} | ({"attention_mask": mask} if self.masked else {})
        return functional.normalize(self.model.get_text_features(**inputs).pooler_output.float())

    def measure_token_width(self, pixels: torch.Tensor) -> int:
        """Return the width of the image tokens, found by a forward pass over some preprocessed images."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            width = int(self.encode_images(pixels).tokens.shape[-1])
        self.train(was_training)
        return width


def encode_pairs(
    towers: Towers, pairs: TrainingPairs, preprocessor: Preprocessor, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the unit vectors of the uncropped images and of the unmasked titles at `rows`, [rows, d] each.

    The towers run in evaluation mode and are put back into their former mode.
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
