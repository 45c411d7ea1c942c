"""The affinity features in torch, for rankers that are trained end to end: the same values, with gradients.

The module repeats the definition in affinity.py operation by operation, because NumPy has no gradients. A test compares
the two. No other module of this package imports torch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from feature_repo.features.affinity import NAMES, TIERS, TOP
from feature_repo.features.ages import MICROSECONDS_PER_MONTH
from feature_repo.schema import CHILD_AGE_MONTHS


def compute_affinity(
    candidate: Tensor,
    history: Tensor,
    interest: Tensor,
    ages: tuple[Tensor, Tensor],
    genders: tuple[Tensor, Tensor],
    since_click_us: Tensor,
    same: Tensor,
    age_bounds: Sequence[float] = CHILD_AGE_MONTHS,
) -> Tensor:
    """Return the features of n rows, with gradients to the vectors and the distributions.

    No vector may be all zeros: its cosines to clicks would count as 0, while affinity.py treats it as missing.

    Args:
        candidate: float [n, d], vectors of the candidates; NaN rows for candidates without one.
        history: float [n, h, d], vectors of the last clicks, h at least 1; NaN rows for clicks without one.
        interest: float [n, d], interest vectors of the users; NaN rows for users without one.
        ages: distributions of the candidates [n, stages], and of the users at their last click [n, stages].
        genders: distributions of the candidates [n, genders], and of the users [n, genders].
        since_click_us: [n], microseconds since the user's last click; negative values count as 0.
        same: float [n, 3], number of the last clicks with the same product, semantic ID and first code; returned as it
            is.
        age_bounds: bounds of the child age stages in months.

    Returns:
        float [n, len(NAMES)], in the order of NAMES. A feature is NaN in the rows whose input to it is missing; missing
        clicks do not count in the means.
    """
    direction = _unit(candidate)
    similarity = torch.einsum("nd,nhd->nh", direction.nan_to_num(), _unit(history).nan_to_num())
    missing = history.isnan().any(-1) | candidate.isnan().any(-1, keepdim=True)
    child = shift_ages(ages[1], since_click_us, age_bounds)
    columns = [
        (direction * _unit(interest)).sum(-1),
        *_summarize_similarities(similarity, missing),
        (_unit(ages[0]) * _unit(child)).sum(-1),
        (_unit(genders[0]) * _unit(genders[1])).sum(-1),
        _expected_stage(ages[0]) - _expected_stage(child),
        *same.unbind(-1),
    ]
    assert len(columns) == len(NAMES)
    return torch.stack(columns, dim=-1)


def shift_ages(distribution: Tensor, microseconds: Tensor, age_bounds: Sequence[float] = CHILD_AGE_MONTHS) -> Tensor:
    """Return the age distribution of the same children after some time has passed.

    Ages within a stage are assumed to be uniform. Children who outgrow the last stage are counted in it.

    Args:
        distribution: float [n, stages]; NaN rows stay NaN.
        microseconds: [n], the time that has passed; negative values count as 0.
        age_bounds: bounds of the stages in months.

    Returns:
        float [n, stages], with the dtype and on the device of `distribution`.
    """
    months = microseconds.clamp(min=0).to(torch.float64) / MICROSECONDS_PER_MONTH
    bounds = torch.tensor(age_bounds, dtype=torch.float64, device=distribution.device)
    low, high = bounds[:-1], bounds[1:]
    earlier_bounds = bounds[1:-1][None, :, None] - months[:, None, None]
    younger = (((earlier_bounds - low) / (high - low)).clamp(0, 1) * distribution[:, None, :]).sum(-1)
    total = distribution.sum(-1, keepdim=True).to(torch.float64)
    edges = torch.cat([torch.zeros_like(total), younger, total], dim=-1)
    return edges.diff(dim=-1).to(distribution.dtype)


def _summarize_similarities(similarity: Tensor, missing: Tensor) -> list[Tensor]:
    """Return the features of SIMILARITY_NAMES, float [n] each, from cosines [n, h]; NaN where all are missing."""
    present = (~missing).sum(-1).to(similarity.dtype)
    count = torch.where(present > 0, present, torch.nan)
    low = similarity.masked_fill(missing, -2.0)
    largest = low.topk(min(TOP, low.shape[-1]), dim=-1).values
    scaled = similarity.masked_fill(missing, -1.0) * (len(TIERS) - 1)
    middles = torch.arange(len(TIERS) - 1, device=scaled.device, dtype=scaled.dtype)
    past = (scaled[..., None] - middles).clamp(0, 1).sum(-2)
    tiers = torch.cat([count[:, None], past], -1) - torch.cat([past, torch.zeros_like(count)[:, None]], -1)
    nan_if_none = count * 0
    return [
        largest[:, 0] + nan_if_none,
        similarity.masked_fill(missing, 0.0).sum(-1) / count,
        largest.masked_fill(largest < -1.5, 0.0).sum(-1) / count.clamp(max=TOP),
        *(torch.log1p(tiers.clamp(min=0)) + nan_if_none[:, None]).unbind(-1),
    ]


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors scaled to unit length; NaN for vectors with NaN and for zeros."""
    norm = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, torch.nan)


def _expected_stage(distribution: Tensor) -> Tensor:
    """Return the mean index of the stage of distributions [n, stages], float [n]."""
    stages = torch.arange(distribution.shape[-1], device=distribution.device, dtype=distribution.dtype)
    return (distribution * stages).sum(-1)
