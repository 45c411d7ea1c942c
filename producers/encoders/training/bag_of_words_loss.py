"""Loss for predicting the words of a title from its image (Huang et al. 2024, SuperClass).

A bag of words has many correct answers at once. It therefore trains a tower from random weights faster than one correct
title among 64. Words are weighted by their idf. The head is not part of the checkpoint.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.pairs import TrainingPairs

LOSS_WEIGHT = 3.0
"""Weight of this loss beside the contrastive loss; docs/how-to/train-an-encoder.md has the figures of other values."""
MIN_DOCUMENT_FREQUENCY = 0.002
"""Words in at most this share of the titles are left out: the head would memorize their images."""


class BagOfWordsLoss(nn.Module):
    """The head that predicts the words of a title from the mean token of its image, and its loss."""

    column: torch.Tensor
    """Position of each token among the predicted words, int64 [largest token + 1]. All tokens that are not predicted
    share the last position."""
    weight: torch.Tensor
    """Inverse document frequency (idf) of each predicted word, float32 [words + 1]; the last one is 0."""

    def __init__(self, width: int, pairs: TrainingPairs) -> None:
        """Create the head with random weights. It predicts the words in more than MIN_DOCUMENT_FREQUENCY of the titles.

        Args:
            width: width of the image tokens.
            pairs: at least one pair. The words and their frequencies are those of the titles.
        """
        super().__init__()
        frequency = compute_document_frequency(pairs)
        words = np.flatnonzero(frequency > MIN_DOCUMENT_FREQUENCY)
        column = np.full(len(frequency), len(words), np.int64)  # the last column stands for all other tokens
        column[words] = np.arange(len(words))
        weight = np.append(-np.log(frequency[words]), 0).astype(np.float32)
        self.register_buffer("column", torch.from_numpy(column), persistent=False)
        self.register_buffer("weight", torch.from_numpy(weight), persistent=False)
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, len(words)))

    def forward(self, mean_token: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Compute the cross-entropy of the words of the titles.

        Args:
            mean_token: mean of the tokens of each image, float [n, width].
            tokens: unmasked tokens of the titles, int64 [n, length]; none larger than in the titles of the constructor.

        Returns:
            A scalar, the mean over the titles, not yet multiplied by LOSS_WEIGHT. A title adds 0 if none of its words
            is predicted.
        """
        log_probabilities = functional.log_softmax(self.head(mean_token).float(), dim=1)
        return -(self._make_targets(tokens) * log_probabilities).sum(dim=1).mean()

    def _make_targets(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the weights of the words of each title, float32 [n, words]; a row sums to 1, or to 0 without words."""
        columns = self.column[tokens]
        weights = torch.zeros(len(tokens), len(self.weight), device=tokens.device)
        weights.scatter_(1, columns, self.weight[columns])
        return weights[:, :-1] / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)


def compute_document_frequency(pairs: TrainingPairs) -> np.ndarray:
    """Return the share of the titles that have each token, float64 [largest token + 1]; 0 for special tokens.

    A token that occurs several times in a title counts once. There must be at least one pair.
    """
    size = int(pairs.tokens.max()) + 1
    row = np.repeat(np.arange(len(pairs)), pairs.tokens.shape[1])
    distinct = np.unique(row * size + pairs.tokens.ravel()) % size
    frequency = np.bincount(distinct, minlength=size) / len(pairs)
    frequency[pairs.special_tokens[pairs.special_tokens < size]] = 0
    return frequency
