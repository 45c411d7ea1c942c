"""Attributes from pixels: a small convolutional network, trained on real pictures of the size of the generated ones.

It sees texture and shape: the means and the maxima of the maps of every level go to a linear layer for each attribute.
Its errors limit what can be measured, so that its accuracy on held-out real pictures is part of every result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from feature_repo.errors import InvalidInputError
from producers.text_to_image.judging.pictures import Pixels

WIDTHS = (16, 32, 64, 128)
"""Channels of each level; a level halves the height and the width of the one before it."""
SMALL_SIDE = 40
"""Pixels. Pictures with a shorter side of at most this keep their size in the first level: patterns are fine there."""
EPOCHS = 10
BATCH_SIZE = 64
PEAK_RATE = 4e-3
"""Largest learning rate of the one-cycle schedule."""
WEIGHT_DECAY = 0.05
SMOOTHING = 0.05
"""Label smoothing."""
SHIFT = 0.04
"""Largest shift of a training picture, as a share of its side."""
PREDICTED_AT_ONCE = 256

Values = Mapping[str, Sequence[str | None]]
"""Attribute -> value of each of n pictures; None where it is not known."""


class AttributeNetwork(nn.Module):
    """Pictures to logits of each attribute."""

    def __init__(self, classes: Sequence[int], *, is_small: bool) -> None:
        """Create an untrained network.

        Args:
            classes: number of values of each attribute.
            is_small: whether the first level keeps the size of the pictures.
        """
        super().__init__()
        levels: list[nn.Module] = []
        channels = 3
        for number, width in enumerate(WIDTHS[:-1] if is_small else WIDTHS):
            stride = 1 if is_small and number == 0 else 2
            layers = [_convolve(channels, width, stride)] + [_convolve(width, width, 1)] * (number > 0)
            levels.append(nn.Sequential(*layers))
            channels = width
        self.levels = nn.ModuleList(levels)
        pooled = 2 * sum(WIDTHS[: len(levels)])
        self.heads = nn.ModuleList(nn.Linear(pooled, count) for count in classes)

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return logits [n, values] of each attribute, for uint8 pictures [n, height, width, 3]."""
        maps = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1  # NHWC memory seen as NCHW: channels_last
        pooled = []
        for level in self.levels:
            maps = level(maps)
            pooled += [maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))]
        features = torch.cat(pooled, dim=1)
        return [head(features) for head in self.heads]


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained network and the values that its outputs stand for."""

    network: AttributeNetwork
    values: Mapping[str, tuple[str, ...]]
    """Attribute -> its values, in the order of the logits."""

    def predict(self, pixels: Pixels) -> dict[str, NDArray[np.str_]]:
        """Return the most probable value of each attribute [n] for pictures [n, height, width, 3]."""
        indices: list[list[NDArray[np.int64]]] = [[] for _ in self.values]
        with torch.inference_mode():
            for start in range(0, len(pixels), PREDICTED_AT_ONCE):
                batch = torch.from_numpy(pixels[start : start + PREDICTED_AT_ONCE])
                for parts, logits in zip(indices, self.network(batch), strict=True):
                    parts.append(logits.argmax(dim=1).numpy())
        return {
            name: np.array(values)[np.concatenate([np.empty(0, np.int64), *parts])]
            for (name, values), parts in zip(self.values.items(), indices, strict=True)
        }


def train_classifier(
    pixels: Pixels, values: Values, *, seed: int, progress: Callable[[int, int], None] | None = None
) -> AttributeClassifier:
    """Train on real pictures. The same arguments give the same classifier on one thread.

    Args:
        pixels: uint8 [n, height, width, 3].
        values: what the pictures show; a picture trains only the attributes that are known of it.
        seed: of the weights, the order of the pictures and their augmentation: shifts and mirror images.
        progress: called with finished and total steps.

    Raises:
        InvalidInputError: an attribute has fewer than two values, or there are fewer than BATCH_SIZE pictures.
    """
    known = {name: tuple(sorted({value for value in column if value is not None})) for name, column in values.items()}
    for name, different in known.items():
        if len(different) < 2:
            raise InvalidInputError(
                f"real pictures: {name} has {len(different)} values; expected 2 or more to tell apart"
            )
    if len(pixels) < BATCH_SIZE:
        raise InvalidInputError(f"real pictures: {len(pixels)} can train; expected {BATCH_SIZE} or more")
    targets = torch.stack([_index(values[name], different) for name, different in known.items()], dim=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        is_small = min(pixels.shape[1:3]) <= SMALL_SIDE
        network = AttributeNetwork([len(different) for different in known.values()], is_small=is_small)
    steps = EPOCHS * (len(pixels) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        at = step % (len(pixels) // BATCH_SIZE)
        if at == 0:
            order = rng.permutation(len(pixels))
        rows = order[at * BATCH_SIZE : (at + 1) * BATCH_SIZE]
        logits = network(torch.from_numpy(_augment(pixels[rows], rng)))
        loss = torch.stack(
            [
                functional.cross_entropy(one, targets[rows, number], ignore_index=-1, label_smoothing=SMOOTHING)
                for number, one in enumerate(logits)
                if (targets[rows, number] >= 0).any()
            ]
        ).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    return AttributeClassifier(network.eval(), known)


def _convolve(channels: int, width: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _index(column: Sequence[str | None], different: Sequence[str]) -> torch.Tensor:
    """Return the position of each value among the different ones, -1 for None."""
    positions = {value: position for position, value in enumerate(different)}
    return torch.tensor([-1 if value is None else positions[value] for value in column])


def _augment(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a batch shifted by a few pixels, the border repeated, and mirrored in half of the cases."""
    height, width = pixels.shape[1:3]
    reach = [max(1, round(SHIFT * side)) for side in (height, width)]
    top, left = (int(rng.integers(0, 2 * most + 1)) for most in reach)
    padded = np.pad(pixels, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)), mode="edge")
    shifted = padded[:, top : top + height, left : left + width]
    return np.ascontiguousarray(shifted[:, :, ::-1] if rng.random() < 0.5 else shifted)
