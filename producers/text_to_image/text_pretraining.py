"""Train a text encoder from random weights: sentences must find their pictures (CLIP, Radford et al. 2021).

Stable Diffusion's text encoder comes from CLIP too. The denoising loss alone teaches words slowly, because they explain
little of it. After this training, sentences of different categories, colours and patterns have different states, and
the UNet needs far fewer steps to follow them. The network that sees the pictures is not kept.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.encoders.training.contrastive import contrastive_loss
from producers.text_to_image.pairs import PicturePairs
from producers.text_to_image.picture_network import PictureNetwork, augment_pixels, is_small
from producers.text_to_image.sentences import encode_tokens, tokenize_sentences
from producers.text_to_image.training_loop import TrainingContext, TrainingResult, TrainingSettings, run_training

INITIAL_SCALE = 10.0
"""Of the cosines; it is trained."""


class ContrastiveModel(nn.Module):
    """A text encoder and a picture network as one module, whose output is their contrastive loss."""

    def __init__(self, text_encoder: Any, *, is_small: bool) -> None:
        """Wrap a text encoder of transformers; training changes it in place."""
        super().__init__()
        width = int(text_encoder.config.hidden_size)
        self.text_encoder = text_encoder
        self.picture_network = PictureNetwork([width], is_small=is_small)
        self.projection = nn.Linear(width, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))

    def forward(
        self, pixels: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor, sentence_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            pixels: uint8 [n, height, width, 3].
            input_ids: int64 [n, length].
            attention_mask: int64 [n, length].
            sentence_ids: int64 [n], equal for equal sentences.
        """
        states = encode_tokens(self.text_encoder, input_ids, attention_mask).float()
        words = attention_mask[..., None]
        text = functional.normalize(self.projection((states * words).sum(dim=1) / words.sum(dim=1)).float(), dim=1)
        image = functional.normalize(self.picture_network(pixels)[0].float(), dim=1)
        return contrastive_loss(image, text, sentence_ids, self.log_scale.exp())


def train_contrastively(
    pipeline: Any,
    pairs: PicturePairs,
    pixels: NDArray[np.uint8],
    settings: TrainingSettings,
    context: TrainingContext,
) -> TrainingResult:
    """Train the text encoder of a pipeline in place.

    Args:
        pipeline: of Stable Diffusion's classes, on `device`.
        pairs: pictures and sentences.
        pixels: of the pictures, uint8 [n, side, side, 3].
        settings: of the training; a sentence is compared with the others of its micro-batch.
        context: processes, device and folder.

    Raises:
        InvalidInputError: the loss was not finite in ten steps in a row.
    """
    tokens = tokenize_sentences(pipeline.tokenizer, pairs.texts)
    sentence_ids = torch.from_numpy(np.unique(np.array(pairs.texts), return_inverse=True)[1])
    torch.manual_seed(settings.seed)

    def make_loss(model: Any, rows: NDArray[np.int64], generator: torch.Generator) -> torch.Tensor:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        seen = torch.from_numpy(augment_pixels(pixels[pairs.picture_of[rows]], rng))
        index = torch.from_numpy(rows)
        parts = (seen, tokens.input_ids[index], tokens.attention_mask[index], sentence_ids[index])
        loss: torch.Tensor = model(*(part.to(context.device) for part in parts))
        return loss

    pipeline.text_encoder.requires_grad_(True).train()
    return run_training(
        ContrastiveModel(pipeline.text_encoder, is_small=is_small(pixels)).to(context.device),
        len(pairs.texts),
        make_loss,
        settings,
        context,
    )
