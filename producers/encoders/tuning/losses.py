"""Losses of a tuning."""

import torch
from torch.nn import functional

EXCLUDED = -1e9
"""Logit of a candidate that does not count."""


def supervised_contrastive_loss(
    queries: torch.Tensor,
    candidates: torch.Tensor,
    is_positive: torch.Tensor,
    is_counted: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Return how badly queries find their positives among the counted candidates, a scalar.

    It is L_out of Khosla et al. 2020, "Supervised Contrastive Learning", equation 2: the mean over the positives of a
    query, then over the queries that have one.

    Args:
        queries: unit vectors [n, d].
        candidates: unit vectors [m, d].
        is_positive: bool [n, m].
        is_counted: bool [n, m]; other candidates are neither right nor wrong. Positives count in any case.
        scale: factor of the cosines.
    """
    logits = (queries @ candidates.T * scale).masked_fill(~(is_counted | is_positive), EXCLUDED)
    log_probabilities = functional.log_softmax(logits, dim=1)
    positives = is_positive.sum(dim=1)
    means = -(log_probabilities * is_positive).sum(dim=1) / positives.clamp(min=1)
    return means.sum() / (positives > 0).sum().clamp(min=1)


def naming_loss(
    images: torch.Tensor, sentences: torch.Tensor, fits: torch.Tensor, weights: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Return how badly images find the sentences that fit them, a scalar: the mean cross-entropy over the images.

    It is the loss of SuperClass (Huang et al. 2024), with vectors of sentences in the place of a classifier. The target
    of an image is spread over its sentences by their weights; images that no sentence fits do not count.

    Args:
        images: unit vectors [n, d].
        sentences: unit vectors [m, d].
        fits: share of the images that each sentence fits, float [m], above 0; frequent sentences need not be far from
            all images, so their logits start higher.
        weights: float [n, m], at least 0; 0 where a sentence does not fit.
        scale: factor of the cosines.
    """
    logits = images @ sentences.T * scale + fits.log()
    total = weights.sum(dim=1, keepdim=True)
    targets = weights / total.clamp(min=1e-6)
    losses = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return losses.sum() / (total[:, 0] > 0).sum().clamp(min=1)
