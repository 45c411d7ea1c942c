"""The affinity features in torch, for rankers that train end to end: the same values, and gradients to the vectors.

As affinity.py defines them, which it repeats operation by operation because NumPy has no gradients; a test holds the
two together. The heavy import stands here and nowhere else in this package.
"""

import torch
from torch import Tensor

from feature_repo.features.affinity import NAMES, TIERS, TOP
from feature_repo.features.ages import MICROSECONDS_A_MONTH
from feature_repo.schema import CHILD_AGE_MONTHS


def compute_affinity(
    candidate: Tensor,
    history: Tensor,
    interest: Tensor,
    ages: tuple[Tensor, Tensor],
    genders: tuple[Tensor, Tensor],
    passed: Tensor,
    same: Tensor,
) -> Tensor:
    """The features of n rows.

    Args:
        candidate: float [n, d], NaN rows where there is no vector.
        history: float [n, h, d], the last clicks.
        interest: float [n, d].
        ages: of the candidates [n, stages]; of the users' clicks [n, stages].
        genders: likewise [n, genders].
        passed: [n], microseconds since the user's last click.
        same: float [n, 3], how many of the last clicks were the same product, semantic ID, first code.

    Returns:
        float [n, len(NAMES)], in the order of NAMES, NaN where nothing is known.
    """
    direction = _unit(candidate)
    similarity = torch.einsum("nd,nhd->nh", direction.nan_to_num(), _unit(history).nan_to_num())
    missing = history.isnan().any(-1) | candidate.isnan().any(-1, keepdim=True)
    child = shift_ages(ages[1], passed)
    columns = [
        (direction * _unit(interest)).sum(-1),
        *_of_similarities(similarity, missing),
        (_unit(ages[0]) * _unit(child)).sum(-1),
        (_unit(genders[0]) * _unit(genders[1])).sum(-1),
        _expected_stage(ages[0]) - _expected_stage(child),
        *same.unbind(-1),
    ]
    assert len(columns) == len(NAMES)
    return torch.stack(columns, dim=-1)


def shift_ages(distribution: Tensor, passed: Tensor) -> Tensor:
    """The distribution over age stages [n, stages] of the same children `passed` [n] microseconds later."""
    months = passed.clamp(min=0).to(torch.float64) / MICROSECONDS_A_MONTH
    bounds = torch.tensor(CHILD_AGE_MONTHS, dtype=torch.float64, device=distribution.device)
    low, high = bounds[:-1], bounds[1:]
    was = bounds[1:-1][None, :, None] - months[:, None, None]
    younger = (((was - low) / (high - low)).clamp(0, 1) * distribution[:, None, :]).sum(-1)
    total = distribution.sum(-1, keepdim=True).to(torch.float64)
    edges = torch.cat([torch.zeros_like(total), younger, total], dim=-1)
    return edges.diff(dim=-1).to(distribution.dtype)


def _of_similarities(similarity: Tensor, missing: Tensor) -> list[Tensor]:
    known = (~missing).sum(-1).to(similarity.dtype)
    count = torch.where(known > 0, known, torch.nan)
    low = similarity.masked_fill(missing, -2.0)
    largest = low.topk(min(TOP, low.shape[-1]), dim=-1).values
    place = similarity.masked_fill(missing, -1.0) * (len(TIERS) - 1)
    middles = torch.arange(len(TIERS) - 1, device=place.device, dtype=place.dtype)
    past = (place[..., None] - middles).clamp(0, 1).sum(-2)
    tiers = torch.cat([count[:, None], past], -1) - torch.cat([past, torch.zeros_like(count)[:, None]], -1)
    nothing = count * 0
    return [
        largest[:, 0] + nothing,
        similarity.masked_fill(missing, 0.0).sum(-1) / count,
        largest.masked_fill(largest < -1.5, 0.0).sum(-1) / count.clamp(max=TOP),
        *(torch.log1p(tiers.clamp(min=0)) + nothing[:, None]).unbind(-1),
    ]


def _unit(vectors: Tensor) -> Tensor:
    norm = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, torch.nan)


def _expected_stage(distribution: Tensor) -> Tensor:
    stages = torch.arange(distribution.shape[-1], device=distribution.device, dtype=distribution.dtype)
    return (distribution * stages).sum(-1)
