"""The image alone is to name the words of its title (classification on raw text: Huang et al. 2024, SuperClass).

A bag of words is a target of many right answers at once, and so teaches a tower from nothing faster than the one right
title among 64. Rare words weigh more (their idf); the head is thrown away after training.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.pairs import Pairs

WEIGHT = 3.0
"""Beside the contrastive loss; docs/encoder.md has the figures of others."""
RAREST = 0.002
"""Share of the titles below which a word is left out: it would be learnt by heart."""


class Words(nn.Module):
    """The head that names words."""

    column: torch.Tensor
    weight: torch.Tensor

    def __init__(self, width: int, pairs: Pairs) -> None:
        super().__init__()
        often = document_frequency(pairs)
        kept = np.flatnonzero(often > RAREST)
        column = np.full(len(often), len(kept), np.int64)  # one more for all that is left out
        column[kept] = np.arange(len(kept))
        weight = np.append(-np.log(often[kept]), 0).astype(np.float32)
        self.register_buffer("column", torch.from_numpy(column), persistent=False)
        self.register_buffer("weight", torch.from_numpy(weight), persistent=False)
        self.head = nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, len(kept)))

    def forward(self, seen: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the words of `tokens` [n, length], from the mean of the image's tokens [n, width]."""
        said = functional.log_softmax(self.head(seen).float(), dim=1)
        return -(self.shares(tokens) * said).sum(dim=1).mean()

    def shares(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 [n, words]: the weight of each word that a title holds, rows summing to 1, or 0 where none is."""
        columns = self.column[tokens]
        held = torch.zeros(len(tokens), len(self.weight), device=tokens.device)
        held.scatter_(1, columns, self.weight[columns])
        return held[:, :-1] / held.sum(dim=1, keepdim=True).clamp(min=1e-6)


def document_frequency(pairs: Pairs) -> np.ndarray:
    """Share of the titles that hold each token, 0 for the special; float64 [largest token + 1]."""
    size = int(pairs.tokens.max()) + 1
    row = np.repeat(np.arange(len(pairs)), pairs.tokens.shape[1])
    once = np.unique(row * size + pairs.tokens.ravel()) % size
    often = np.bincount(once, minlength=size) / len(pairs)
    often[pairs.special[pairs.special < size]] = 0
    return often
