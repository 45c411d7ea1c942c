"""Attributes from pixels: a small convolutional network, trained on real pictures of the size of the generated ones.

Its errors limit what can be measured, so that its accuracy on held-out real pictures is part of every result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from feature_repo.errors import InvalidInputError
from producers.text_to_image.judging.pictures import Pixels
from producers.text_to_image.picture_network import PictureNetwork, augment_pixels, is_small

EPOCHS = 30
"""After 10 epochs, .65 of the patterns of held-out combinations of attributes are recognized, after 30 .83."""
BATCH_SIZE = 64
PEAK_RATE = 4e-3
"""Largest learning rate of the one-cycle schedule."""
WEIGHT_DECAY = 0.05
SMOOTHING = 0.05
"""Label smoothing."""
PREDICTED_AT_ONCE = 256

Values = Mapping[str, Sequence[str | None]]
"""Attribute -> value of each of n pictures; None where it is not known."""


@dataclass(frozen=True)
class AttributeClassifier:
    """A trained network and the values that its outputs stand for."""

    network: PictureNetwork
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
        network = PictureNetwork([len(different) for different in known.values()], is_small=is_small(pixels))
    steps = EPOCHS * (len(pixels) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        at = step % (len(pixels) // BATCH_SIZE)
        if at == 0:
            order = rng.permutation(len(pixels))
        rows = order[at * BATCH_SIZE : (at + 1) * BATCH_SIZE]
        logits = network(torch.from_numpy(augment_pixels(pixels[rows], rng)))
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


def _index(column: Sequence[str | None], different: Sequence[str]) -> torch.Tensor:
    """Return the position of each value among the different ones, -1 for None."""
    positions = {value: position for position, value in enumerate(different)}
    return torch.tensor([-1 if value is None else positions[value] for value in column])
