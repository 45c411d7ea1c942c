"""Train heads and words on outputs of towers, by the contrastive loss and the bag-of-words loss.

The towers do not run, so a step costs milliseconds, and a batch may have thousands of pairs. A part of each batch are
images that the half-trained heads find alike (hard negatives). The training stops when recall on validation products
no longer rises, and takes the heads of the best step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from producers.encoders.assembled.learner import HeadData, Learner
from producers.encoders.assembled.model import AssembledModel
from producers.encoders.encoder import Outputs
from producers.encoders.recall import rank_right_images

BATCH = 2048
"""Pairs in a batch; all of them if there are fewer."""
EPOCHS, MIN_STEPS = 40, 60
"""Passes over the products if the recall keeps rising, and the fewest steps that are planned."""
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 0.05
HARD_SHARE = 0.25
"""Share of a batch that is chosen because it is like the rest of the batch."""
VALIDATION_SHARE, MAX_VALIDATION = 0.1, 2000
"""Share of the titles whose products are not trained on but validated on, and the most such products."""
MIN_TITLES = 200
"""With fewer titles there is no validation, and the heads are trained for MIN_STEPS."""
VALIDATIONS, PATIENCE = 20, 5
"""Validations of a planned training, and how many without a better one end it."""
REFIT_BELOW = 5000
"""With fewer products the heads are trained again on all of them, for as many steps as were best."""


@dataclass(frozen=True)
class HeadReport:
    """How a training of heads went."""

    steps: int
    """Steps up to the best validation."""
    planned: int
    """Steps if the recall had kept rising."""
    validation: int
    """Products validated on."""
    reciprocal_rank: float
    """Mean of 1 / rank of a title's own image among those of the validation products; NaN without such products."""
    is_refitted: bool
    """Whether the heads were then trained again on all products."""


def train_heads(
    model: AssembledModel,
    data: HeadData,
    *,
    seed: int,
    is_refitted: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> HeadReport:
    """Train the heads and words of a model in place; its towers are not touched.

    Args:
        model: the assembled model.
        data: at least two products.
        seed: of the weights, the order, the dropout and the validation products.
        is_refitted: whether the heads of fewer than REFIT_BELOW products are trained again, on all of them.
        progress: called with the steps done and the steps planned.
    """
    rows = np.arange(len(data.image))
    validation = draw_validation(data.title_ids, seed)
    fitted = rows[~np.isin(rows, validation)] if len(validation) else rows
    steps = max(MIN_STEPS, EPOCHS * len(fitted) // BATCH)
    learner, best_step, best = _fit(model, data, fitted, validation, steps, steps, seed, progress)
    is_refitted = is_refitted and len(validation) > 0 and len(rows) < REFIT_BELOW
    if is_refitted:
        learner, _, _ = _fit(model, data, rows, validation[:0], steps, best_step, seed, lambda done, total: None)
    learner.copy_to(model)
    return HeadReport(best_step, steps, len(validation), best, is_refitted)


def draw_validation(title_ids: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the rows of some titles, ascending; products of equal titles stay together.

    None of fewer than MIN_TITLES titles, where a few ranks would decide by chance.
    """
    titles = np.unique(title_ids)
    if len(titles) < MIN_TITLES:
        return np.empty(0, np.int64)
    count = int(min(VALIDATION_SHARE * len(titles), MAX_VALIDATION))
    drawn = np.random.default_rng(seed).choice(titles, count, replace=False)
    return np.flatnonzero(np.isin(title_ids, drawn))


def _fit(
    model: AssembledModel,
    data: HeadData,
    rows: NDArray[np.int64],
    validation: NDArray[np.int64],
    planned: int,
    last: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> tuple[Learner, int, float]:
    """Train on some rows for at most `last` of `planned` steps; return the best learner, its step and its rank."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    learner = Learner(model, model.config.hidden, model.config.projection_dim)
    learner.fit_statistics(data, rows)
    matrices = [weight for weight in learner.parameters() if weight.dim() > 1]
    vectors = [weight for weight in learner.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _compute_rate_share(step / planned))
    every = max(1, planned // VALIDATIONS)
    best_step, best, worse, best_state = last, -1.0, 0, learner.state_dict()
    order, current = rng.permutation(rows), None
    for step in range(last):
        if len(order) < min(BATCH, len(rows)):
            order = np.concatenate([order, rng.permutation(rows)])
        batch, order = _draw_batch(order, rows, current, rng)
        _run_step(learner, data, batch, optimizer)
        schedule.step()
        progress(step + 1, planned)
        if (step + 1) % every == 0:
            current = _encode_rows(learner, data, rows)[0] if len(rows) > BATCH else None
            if not len(validation):
                continue
            rank = _measure_reciprocal_rank(*_encode_rows(learner, data, validation), data.title_ids[validation])
            worse = 0 if rank > best else worse + 1
            if rank > best:
                best_step, best = step + 1, rank
                best_state = {name: value.clone() for name, value in learner.state_dict().items()}
            if worse >= PATIENCE:
                break
    if len(validation):
        learner.load_state_dict(best_state)
    return learner.eval(), best_step, best if len(validation) else float("nan")


def _run_step(learner: Learner, data: HeadData, batch: NDArray[np.int64], optimizer: torch.optim.Optimizer) -> None:
    learner.train()
    text = _to_tensor(data.text[batch]) if data.text is not None else None
    words, title_ids = torch.from_numpy(data.words[batch]), torch.from_numpy(data.title_ids[batch])
    loss = learner.compute_loss(_to_tensor(data.image[batch]), text, words, title_ids)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _draw_batch(
    order: NDArray[np.int64], rows: NDArray[np.int64], vectors: NDArray[np.float32] | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the next batch and the rest of the order; without `vectors` of `rows` it has no hard negatives.

    HARD_SHARE of the batch are then the images most like a random image of the batch, other than itself.
    """
    size = min(BATCH, len(rows))
    hard = 0 if vectors is None else int(HARD_SHARE * size)
    batch, rest = order[: size - hard], order[size - hard :]
    if vectors is None:
        return batch, rest
    anchors = np.searchsorted(rows, rng.choice(batch, hard // 4, replace=False))
    likeness = vectors[anchors] @ vectors.T
    likeness[np.arange(len(anchors)), anchors] = -2
    nearest = np.argpartition(-likeness, 4, axis=1)[:, :4]
    return np.unique(np.concatenate([batch, rows[nearest.ravel()]])), rest


def _encode_rows(
    learner: Learner, data: HeadData, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the unit vectors of the images and of the titles of some products, [rows, dim] each."""
    learner.eval()
    images, texts = [], []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            images.append(functional.normalize(learner.encode_images(_to_tensor(data.image[part]))).numpy())
            outputs = _to_tensor(data.text[part]) if data.text is not None else None
            words = torch.from_numpy(data.words[part])
            texts.append(functional.normalize(learner.encode_texts(words, outputs)).numpy())
    return np.concatenate(images), np.concatenate(texts)


def _measure_reciprocal_rank(
    image: NDArray[np.float32], text: NDArray[np.float32], title_ids: NDArray[np.int64]
) -> float:
    return float((1 / (1 + rank_right_images(text @ image.T, title_ids))).mean())


def _to_tensor(outputs: Outputs) -> torch.Tensor:
    return torch.from_numpy(outputs.astype(np.float32))


def _compute_rate_share(done_share: float) -> float:
    """Return the learning rate as a share of the highest one: a linear warm-up times a cosine decay."""
    return min(1.0, done_share / 0.1 + 0.02) * (0.5 * (1 + math.cos(math.pi * done_share)) + 0.01)
