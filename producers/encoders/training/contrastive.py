"""Each picture is to find its own title in the batch, and the other way (Radford et al. 2021, CLIP, figure 3)."""

import torch
from torch.nn import functional


def contrastive(image: torch.Tensor, text: torch.Tensor, same: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE of unit rows [n, d] in both directions; rows of equal `same` [n] share the right answer evenly."""
    logits = image @ text.T * scale
    right = shared(same, same)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def shared(asked: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """float32 [n, m]: the right answers of each row, evenly; every row must have one."""
    right = (asked[:, None] == answers[None, :]).float()
    return right / right.sum(dim=1, keepdim=True)
