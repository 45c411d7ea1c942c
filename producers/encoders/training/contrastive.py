"""Contrastive loss between images and titles, alone or with a momentum copy of the towers.

`contrastive_loss` is the loss of CLIP (Radford et al. 2021, figure 3): each image must find its title in the batch and
each title its image.

`MomentumTowers` follows ALBEF (Li et al. 2021, sections 3.2 and 3.3). The copy is a moving average of the towers. Its
outputs for the last pairs are kept in a queue, so that an image is compared with many more titles than the batch has.
Its own predictions are mixed into the targets, because titles of a shop can be wrong and can fit other images too.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.pairs import PairBatch
from producers.encoders.training.towers import Towers

MOMENTUM = 0.99
"""Share of its own weights that the copy keeps in each step. ALBEF's 0.995 is for trainings of 100,000 steps."""
QUEUE_SIZE = 1024
"""Number of pairs that the queue holds."""
DISTILLATION_WEIGHT = 0.4
"""Weight of the copy's predictions in the targets, after the warm-up."""
DISTILLATION_WARM_UP = 0.3
"""Share of the steps over which that weight rises linearly from 0."""
EMPTY_SLOT = -1
"""Title id of a queue entry that holds no pair yet."""


def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, title_ids: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Compute how badly images and titles find each other in the batch (InfoNCE loss).

    Args:
        image: unit vectors of the images, float [n, d].
        text: unit vectors of the titles of the same pairs, float [n, d].
        title_ids: equal for equal titles, int64 [n]. Such rows are all correct answers for each other, with equal
            weight.
        scale: factor of the cosines, a scalar.

    Returns:
        A scalar: the mean cross-entropy of both directions, image to title and title to image.
    """
    logits = image @ text.T * scale
    targets = share_targets(title_ids, title_ids)
    return (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2


def share_targets(query_ids: torch.Tensor, candidate_ids: torch.Tensor) -> torch.Tensor:
    """Return the probability that each candidate is the answer to each query, float32 [queries, candidates].

    All candidates with the query's id have the same probability, the others 0. A row sums to 1; it is NaN if no
    candidate has the query's id.

    Args:
        query_ids: one id for each query, such as its title id, int64 [queries].
        candidate_ids: the ids of the candidates, int64 [candidates]; they may repeat.
    """
    is_match = (query_ids[:, None] == candidate_ids[None, :]).float()
    return is_match / is_match.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class MomentumOutputs:
    """What the momentum copy computed for n pairs, without gradients."""

    image: torch.Tensor
    """Unit vectors of the images, float32 [n, d]."""
    text: torch.Tensor
    """Unit vectors of the titles, float32 [n, d]."""
    title_ids: torch.Tensor
    """Equal for equal titles, int64 [n]."""


class MomentumTowers(nn.Module):
    """A moving average of the towers (the copy), and a queue of its outputs. Both are saved with the training state."""

    image_queue: torch.Tensor
    """Unit vectors of images, the newest first, float32 [QUEUE_SIZE, d]; zeros where the queue is not filled yet."""
    text_queue: torch.Tensor
    """Unit vectors of titles, in the same order, float32 [QUEUE_SIZE, d]."""
    same_queue: torch.Tensor
    """Title ids, in the same order, int64 [QUEUE_SIZE]; EMPTY_SLOT where the queue is not filled yet."""

    def __init__(self, towers: Towers, dimensions: int) -> None:
        """Copy the towers, and create an empty queue.

        Args:
            towers: the towers to follow; not changed.
            dimensions: length of their vectors.
        """
        super().__init__()
        self.towers = copy.deepcopy(towers)
        self.towers.requires_grad_(False)
        self.register_buffer("image_queue", torch.zeros(QUEUE_SIZE, dimensions))
        self.register_buffer("text_queue", torch.zeros(QUEUE_SIZE, dimensions))
        self.register_buffer("same_queue", torch.full((QUEUE_SIZE,), EMPTY_SLOT))

    @torch.no_grad()
    def update(self, towers: Towers) -> None:
        """Move the copy's weights one step towards those of `towers`, and copy the normalization statistics.

        Each weight becomes MOMENTUM times its own value plus 1 - MOMENTUM times that of `towers`.

        Args:
            towers: the trained towers, with the same layers as those of the constructor; not changed.
        """
        for own, weight in zip(self.towers.parameters(), towers.parameters(), strict=True):
            own.lerp_(weight, 1 - MOMENTUM)
        for own_statistic, statistic in zip(self.towers.buffers(), towers.buffers(), strict=True):
            own_statistic.copy_(statistic)

    @torch.no_grad()
    def encode(self, batch: PairBatch) -> MomentumOutputs:
        """Return the copy's vectors of a batch, in its order. Masked words of the titles stay masked."""
        image = self.towers.encode_images(batch.pixels).vectors
        return MomentumOutputs(image, self.towers.encode_texts(batch.tokens, batch.mask), batch.title_ids)

    @torch.no_grad()
    def enqueue(self, outputs: MomentumOutputs) -> None:
        """Put `outputs` at the front of the queue, in their order. Entries after the first QUEUE_SIZE are dropped."""
        self.image_queue.copy_(torch.cat([outputs.image, self.image_queue])[:QUEUE_SIZE])
        self.text_queue.copy_(torch.cat([outputs.text, self.text_queue])[:QUEUE_SIZE])
        self.same_queue.copy_(torch.cat([outputs.title_ids, self.same_queue])[:QUEUE_SIZE])

    def compute_loss(
        self, image: torch.Tensor, text: torch.Tensor, outputs: MomentumOutputs, scale: torch.Tensor, done_share: float
    ) -> torch.Tensor:
        """Compute the contrastive loss against the copy's outputs for this batch and for the queue.

        The queue is not changed. Candidates with the title of the query are correct answers; the copy's own predictions
        are mixed in with a weight that rises from 0 to DISTILLATION_WEIGHT.

        Args:
            image: unit vectors of the trained image tower, float [n, d].
            text: unit vectors of the trained text tower, float [n, d].
            outputs: the copy's outputs for the same pairs, from `encode`.
            scale: factor of the cosines, a scalar.
            done_share: share of the training's steps that are done, in [0, 1].

        Returns:
            A scalar: the mean of both directions, image to title and title to image.
        """
        is_filled = self.same_queue != EMPTY_SLOT
        candidate_ids = torch.cat([outputs.title_ids, self.same_queue[is_filled]])
        matches = share_targets(outputs.title_ids, candidate_ids)
        weight = DISTILLATION_WEIGHT * min(1.0, done_share / DISTILLATION_WARM_UP)
        loss = torch.zeros((), device=image.device)
        for query, own_query, own_answers, queue in (
            (image, outputs.image, outputs.text, self.text_queue),
            (text, outputs.text, outputs.image, self.image_queue),
        ):
            candidates = torch.cat([own_answers, queue[is_filled]])
            with torch.no_grad():
                predictions = functional.softmax(own_query @ candidates.T * scale, dim=1)
                targets = weight * predictions + (1 - weight) * matches
            loss = loss + functional.cross_entropy(query @ candidates.T * scale, targets) / 2
        return loss
