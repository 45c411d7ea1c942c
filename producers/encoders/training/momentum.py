"""A slow copy of the towers: more to compare with, and softer answers (Li et al. 2021, ALBEF, sections 3.2 and 3.3).

The copy follows as a moving average. What it said of the last pairs waits in a queue, so that a picture is compared
with many more titles than the batch holds; and its own opinion is mixed into the right answers, since titles of a shop
say things that are not so and fit other pictures as well.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from producers.encoders.training.contrastive import shared
from producers.encoders.training.pairs import Batch
from producers.encoders.training.towers import Towers

FOLLOWS = 0.99
"""Share of itself that the copy keeps a step; ALBEF's 0.995 is for runs of 100,000 steps."""
QUEUE = 1024
OWN_OPINION = 0.4
"""Weight of the copy's answers beside the right ones, at the end of their rise."""
RISES = 0.3
"""Share of the steps over which that weight rises from 0."""
EMPTY = -1


@dataclass(frozen=True)
class Said:
    """What the copy says of some pairs: unit rows [n, d] and their titles' numbers [n]."""

    image: torch.Tensor
    text: torch.Tensor
    same: torch.Tensor


class Momentum(nn.Module):
    """The copy and its queue; both are saved with a training's state."""

    image_queue: torch.Tensor
    text_queue: torch.Tensor
    same_queue: torch.Tensor

    def __init__(self, towers: Towers, dimensions: int) -> None:
        super().__init__()
        self.towers = copy.deepcopy(towers)
        self.towers.requires_grad_(False)
        self.register_buffer("image_queue", torch.zeros(QUEUE, dimensions))
        self.register_buffer("text_queue", torch.zeros(QUEUE, dimensions))
        self.register_buffer("same_queue", torch.full((QUEUE,), EMPTY))

    @torch.no_grad()
    def follow(self, towers: Towers) -> None:
        """One step after the towers; statistics of normalisation are taken over as they are."""
        for own, weight in zip(self.towers.parameters(), towers.parameters(), strict=True):
            own.lerp_(weight, 1 - FOLLOWS)
        for mine, statistic in zip(self.towers.buffers(), towers.buffers(), strict=True):
            mine.copy_(statistic)

    @torch.no_grad()
    def say(self, batch: Batch) -> Said:
        """Of a batch."""
        image = self.towers.images(batch.pixels).vectors
        return Said(image, self.towers.texts(batch.tokens, batch.mask), batch.same)

    @torch.no_grad()
    def enqueue(self, said: Said) -> None:
        """Put the newest first; the oldest fall out."""
        self.image_queue.copy_(torch.cat([said.image, self.image_queue])[:QUEUE])
        self.text_queue.copy_(torch.cat([said.text, self.text_queue])[:QUEUE])
        self.same_queue.copy_(torch.cat([said.same, self.same_queue])[:QUEUE])

    def contrast(
        self, image: torch.Tensor, text: torch.Tensor, said: Said, scale: torch.Tensor, done: float
    ) -> torch.Tensor:
        """As `contrastive`, against what the copy said of this batch and of those before it.

        Args:
            image: unit rows [n, d] of the towers that learn; text: the same.
            said: what the copy says of the same pairs.
            done: share of the training, in [0, 1].
        """
        there = self.same_queue != EMPTY
        same = torch.cat([said.same, self.same_queue[there]])
        right = shared(said.same, same)
        weight = OWN_OPINION * min(1.0, done / RISES)
        loss = torch.zeros((), device=image.device)
        for asked, own, answers, waiting in (
            (image, said.image, said.text, self.text_queue),
            (text, said.text, said.image, self.image_queue),
        ):
            candidates = torch.cat([answers, waiting[there]])
            with torch.no_grad():
                opinion = functional.softmax(own @ candidates.T * scale, dim=1)
                target = weight * opinion + (1 - weight) * right
            loss = loss + functional.cross_entropy(asked @ candidates.T * scale, target) / 2
        return loss
