"""What the heads are trained with: heads, words and a classifier of words, and the loss of some products."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from producers.encoders.assembled.model import AssembledModel, Head, Words
from producers.encoders.encoder import Outputs
from producers.encoders.training.contrastive import contrastive_loss

DROPOUT, WORD_DROPOUT = 0.2, 0.1
"""Share of the values of an output, and of the words of a title, that a step does not see."""
WORDS_LOSS_WEIGHT = 1.0
MAX_SCALE = 100.0
"""Largest factor of the cosines."""


@dataclass(frozen=True)
class HeadData:
    """n products with the outputs of their image and of their title."""

    image: Outputs
    """float16 [n, width], finite."""
    text: Outputs | None
    """float16 [n, width], finite; None without a text tower."""
    words: NDArray[np.int64]
    """Ids of the different words of each title [n, m], 0 for none."""
    title_ids: NDArray[np.int64]
    """Equal for equal titles [n]."""


class Learner(nn.Module):
    """The heads and words of a model, and the classifier of the words of a title, which is not kept."""

    def __init__(self, model: AssembledModel, hidden: int, dim: int) -> None:
        super().__init__()
        self.image_head = Head(model.config.image["width"], hidden, dim)
        self.text_head = Head(model.config.text["width"], hidden, dim) if model.config.text else None
        self.words = Words(model.config.words, dim)
        nn.init.normal_(self.words.table.weight, std=0.15)
        self.logit_scale = nn.Parameter(model.logit_scale.detach().clone())
        self.classifier = nn.Linear(dim, model.config.words)
        self.dropout = nn.Dropout(DROPOUT)
        self.word_dropout = nn.Dropout(WORD_DROPOUT)

    def fit_statistics(self, data: HeadData, rows: NDArray[np.int64]) -> None:
        """Set the means and spreads of the outputs, and the idf of the words, from some products."""
        for head, outputs in ((self.image_head, data.image), (self.text_head, data.text)):
            if head is not None and outputs is not None:
                values = torch.from_numpy(outputs[rows].astype(np.float32))
                spread = values.std(dim=0, unbiased=False)
                head.centre.copy_(values.mean(dim=0))
                head.spread.copy_(spread + 0.05 * spread.mean() + 1e-6)
        counts = np.bincount(data.words[rows].ravel(), minlength=len(self.words.idf)).astype(np.float32)
        counts[0] = 0
        self.words.idf.copy_(torch.from_numpy(np.where(counts > 0, np.log(len(rows) / np.maximum(counts, 1)), 0)))

    def encode_images(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return vectors [n, dim], not of unit length, of the image tower's outputs."""
        return self.image_head.project(self.dropout(self.image_head.standardize(outputs)))

    def encode_texts(self, words: torch.Tensor, outputs: torch.Tensor | None) -> torch.Tensor:
        """Return vectors [n, dim], not of unit length, of word ids and the text tower's outputs."""
        vectors = self.words.sum_words(words, self.word_dropout(self.words.idf[words]))
        if self.text_head is None or outputs is None:
            return vectors
        return vectors + self.text_head.project(self.dropout(self.text_head.standardize(outputs)))

    def compute_words_loss(self, vectors: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of the words of the titles, weighted by idf, from the images' vectors."""
        weights = self.words.idf[words]
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)
        log_probabilities = functional.log_softmax(self.classifier(vectors), dim=1)
        return -(weights * log_probabilities.gather(1, words)).sum(dim=1).mean()

    def compute_loss(
        self, image: torch.Tensor, text: torch.Tensor | None, words: torch.Tensor, title_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of some products, from the outputs [n, width] of their images and titles, and their words."""
        images, texts = self.encode_images(image), self.encode_texts(words, text)
        scale = self.logit_scale.exp().clamp(max=MAX_SCALE)
        loss = contrastive_loss(functional.normalize(images), functional.normalize(texts), title_ids, scale)
        return loss + WORDS_LOSS_WEIGHT * self.compute_words_loss(images, words)

    def copy_to(self, model: AssembledModel) -> None:
        """Copy the heads and words to a model."""
        model.image_head.load_state_dict(self.image_head.state_dict())
        model.words.load_state_dict(self.words.state_dict())
        if self.text_head is not None:
            model.text_head.load_state_dict(self.text_head.state_dict())
        with torch.no_grad():
            model.logit_scale.copy_(self.logit_scale)
