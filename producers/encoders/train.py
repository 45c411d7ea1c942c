"""The default encoder, trained on a catalogue: each picture is to find its own title in the batch, and the other way.

Image-text contrastive learning (Radford et al. 2021, CLIP, figure 3), where products of one title are all right
answers. Pictures are cropped a little and never recoloured: colour is a property of the product.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from feature_repo.errors import VitrineError
from producers.encoders import small
from producers.encoders.pixels import Source, decode, decoding_processes

BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
SMALLEST_CROP = 0.95
"""Of the picture's area: a tighter crop hides how large things are, which tells whom a romper fits."""
MASKED_WORDS = 0.1
MAX_SCALE = 100.0


@dataclass(frozen=True)
class Trained:
    """What was learnt from."""

    pairs: int
    """Products with a title and a usable picture."""
    left_out: int
    """Products without a usable picture."""
    steps: int
    loss: float
    """Mean over the last tenth of the steps."""


def train(
    titles: Sequence[str],
    pictures: Sequence[Source],
    folder: Path,
    *,
    pairs_seen: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> Trained:
    """Train the default encoder and write it as a checkpoint that `load` opens.

    Args:
        titles: [n].
        pictures: path or bytes of each title's picture [n]; the unusable are left out and counted.
        folder: where the checkpoint goes.
        pairs_seen: how many image-text pairs to learn from, repeats included; 60,000 take about a minute on 2 cores.
        seed: of the weights, the order and the crops.
        progress: told how many of how many steps are done.

    Raises:
        VitrineError: fewer than two usable pairs.
    """
    with decoding_processes() as pool:
        decoded = decode(pictures, small.GEOMETRY, pool)
    usable = [title for title, good in zip(titles, decoded.usable, strict=True) if good]
    if len(usable) < 2:
        raise VitrineError(
            f"{len(usable)} of {len(titles)} products have a title and a usable picture; at least 2 are needed"
        )
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    tokenizer = small.learn_tokenizer(usable)
    model = small.build(len(tokenizer))
    words = tokenizer(usable, padding=True, truncation=True, return_tensors="np")["input_ids"]
    same = np.unique(np.array(usable), return_inverse=True)[1]
    batch = min(BATCH, len(usable))
    steps = max(1, pairs_seen // batch)
    optimizer = torch.optim.AdamW(_parameters(model), lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    losses = []
    model.train()
    order = np.empty(0, np.int64)
    for step in range(steps):
        if len(order) < batch:
            order = chance.permutation(len(usable))
        rows, order = order[:batch], order[batch:]
        loss = _loss(
            model, crop(decoded.pixels[rows], chance), _some_words(words[rows], chance), torch.from_numpy(same[rows])
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        progress(step + 1, steps)
    small.save(model.eval(), tokenizer, folder)
    return Trained(len(usable), len(titles) - len(usable), steps, float(np.mean(losses[-max(1, steps // 10) :])))


def contrastive(image: torch.Tensor, text: torch.Tensor, same: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE of unit rows [n, d] in both directions; rows of equal `same` [n] share the right answer evenly."""
    logits = image @ text.T * scale
    right = (same[:, None] == same[None, :]).float()
    right = right / right.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


def crop(pixels: NDArray[np.uint8], chance: np.random.Generator) -> torch.Tensor:
    """A random crop of each picture, stretched to its size: uint8 [n, h, w, 3] to float32 [n, 3, h, w] in [-1, 1]."""
    count = len(pixels)
    side = np.sqrt(chance.uniform(SMALLEST_CROP, 1, count))
    stretch = np.exp(chance.uniform(-0.1, 0.1, count))
    window = np.zeros((count, 2, 3), np.float32)
    for axis, size in enumerate((np.minimum(side * stretch, 1), np.minimum(side / stretch, 1))):
        window[:, axis, axis] = size
        window[:, axis, 2] = chance.uniform(-1, 1, count) * (1 - size)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    grid = functional.affine_grid(torch.from_numpy(window), list(values.shape), align_corners=False)
    return functional.grid_sample(values, grid, padding_mode="border", align_corners=False)


def _loss(model: small.SmallModel, pictures: torch.Tensor, words: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    image = model.get_image_features(pictures.contiguous(memory_format=torch.channels_last)).pooler_output
    text = model.get_text_features(input_ids=words, attention_mask=(words > 0).long()).pooler_output
    scale = model.logit_scale.exp().clamp(max=MAX_SCALE)
    return contrastive(functional.normalize(image), functional.normalize(text), same, scale)


def _some_words(words: NDArray[np.int64], chance: np.random.Generator) -> torch.Tensor:
    """Token ids [n, longest], some of them masked: a title is not to be told by one word."""
    words = words[:, : int((words > 0).sum(axis=1).max())].copy()
    masked = (chance.random(words.shape) < MASKED_WORDS) & (words >= len(small.SPECIAL))
    words[masked] = small.SPECIAL.index("[MASK]")
    return torch.from_numpy(words)


def _rate(done: float) -> float:
    return min(1.0, done / WARM_UP + 0.01) * (0.5 * (1 + math.cos(math.pi * done)) + 0.01)


def _parameters(model: torch.nn.Module) -> list[dict[str, object]]:
    """Matrices decay, the rest does not."""
    weights = list(model.parameters())
    return [
        {"params": [p for p in weights if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
    ]
