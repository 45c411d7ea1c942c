"""A ranker that attends to the history: a small deep interest network (Zhou et al. 2018), beside the trees.

A candidate's id, and those of the user's last clicks, are embedded; an attention net weighs each click by how it meets
the candidate, without a softmax, as in the paper; the weighted sum goes into a perceptron with the user, the candidate,
their product, and the dense features. An id that training did not show is embedded as unknown. Dense features are
standardized on the training rows, a missing one is the mean and a flag. Categories are embedded by a shared table of
hashed codes.

One pass over the rows: a second one learns ids by heart. CPU alone; the same seed gives the same scores.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from consumers.ranking.click_counts import ClickIndex, index_clicks
from consumers.ranking.training_set import TrainingSet

Features = Mapping[str, NDArray[Any]]

HISTORY = 20
"""How many of the last clicks are attended to."""
WIDTH = 16
"""Of an id's embedding."""
CATEGORY_WIDTH = 4
CATEGORY_ROWS = 20_011
"""Of the table that all categories share."""
BATCH = 1024
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-5
_SEEDING = threading.Lock()
"""Torch has one state of chance for all threads: weights and order are drawn by one at a time."""
CLIP = 5.0
"""Standard deviations beyond which a dense feature is cut off."""


@dataclass(frozen=True)
class NetworkInputs:
    """What the network sees of n rows."""

    user: Tensor
    """int64 [n], 0 for one that training did not show."""
    product: Tensor
    """int64 [n], likewise."""
    history: Tensor
    """int64 [n, HISTORY], products of the last clicks, newest first, -1 where there are fewer."""
    dense: Tensor
    """float32 [n, features]."""
    categories: Tensor
    """int64 [n, categories], rows of the shared table."""

    def of(self, rows: Tensor | slice) -> "NetworkInputs":
        """Some of them."""
        return NetworkInputs(
            *(each[rows] for each in (self.user, self.product, self.history, self.dense, self.categories))
        )


class DeepInterestNetwork(nn.Module):
    """Rows to the log-odds of a click."""

    def __init__(self, users: int, products: int, dense: int, categories: int) -> None:
        super().__init__()
        self.user = nn.Embedding(users, WIDTH)
        self.product = nn.Embedding(products, WIDTH)
        self.category = nn.Embedding(CATEGORY_ROWS, CATEGORY_WIDTH)
        for table in (self.user, self.product, self.category):
            nn.init.normal_(table.weight, std=0.01)
        self.attention = nn.Sequential(nn.Linear(4 * WIDTH, 16), nn.PReLU(), nn.Linear(16, 1))
        width = 4 * WIDTH + dense + categories * CATEGORY_WIDTH
        self.head = nn.Sequential(nn.Linear(width, 64), nn.PReLU(), nn.Linear(64, 32), nn.PReLU())
        self.last = nn.Linear(32, 1)

    def forward(self, rows: NetworkInputs) -> Tensor:
        """Log-odds float32 [n]."""
        user, candidate = self.user(rows.user), self.product(rows.product)
        interest = self.interest(candidate, rows.history)
        categories = self.category(rows.categories).flatten(1)
        seen = torch.cat([user, candidate, interest, candidate * interest, rows.dense, categories], dim=1)
        return torch.as_tensor(self.last(self.head(seen))).squeeze(1)

    def interest(self, candidate: Tensor, history: Tensor) -> Tensor:
        """Sum of the clicked products, each weighed by how it meets the candidate [n, WIDTH]."""
        clicked = self.product(history.clamp(min=0))
        beside = candidate[:, None].expand_as(clicked)
        weight = self.attention(torch.cat([beside, clicked, beside - clicked, beside * clicked], dim=2))
        return torch.as_tensor((clicked * weight * (history >= 0)[:, :, None]).sum(dim=1))


def fit_and_score(
    data: TrainingSet,
    features: Features,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    seeds: Sequence[int],
) -> NDArray[np.float64]:
    """Train on the rows `train` of a log, once with each seed; click probabilities of the rows `test` [seeds, rows].

    Args:
        data: the joined log [n].
        features: float32 or int32 [n] each, as `rankers.Features`; ids among them are left to the embeddings.
        train: rows to train on, ascending.
        test: rows to score.
        seeds: they start the weights and order the rows.
    """
    torch.set_num_threads(1)  # rankers are trained side by side, a thread each
    clicks = index_clicks(data.user, data.time, data.clicked)
    rows = np.concatenate([train, test])
    known = np.zeros(len(rows), bool)
    known[: len(train)] = True
    seen = _rows(data, features, clicks, rows, known)
    clicked = torch.from_numpy(data.clicked[train].astype(np.float32))
    return np.stack([_one_seed(seen, clicked, len(train), seed) for seed in seeds])


def _one_seed(seen: NetworkInputs, clicked: Tensor, trained: int, seed: int) -> NDArray[np.float64]:
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DeepInterestNetwork(
            int(seen.user.max()) + 1,
            int(max(seen.product.max(), seen.history.max())) + 1,
            seen.dense.shape[1],
            seen.categories.shape[1],
        )
        order = torch.randperm(trained)
    with torch.no_grad():
        share = float(clicked.mean())
        network.last.bias.fill_(float(np.log(share / (1 - share))))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = [order[start : start + BATCH] for start in range(0, trained, BATCH)]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=len(batches))
    loss = nn.BCEWithLogitsLoss()
    for batch in batches:
        optimizer.zero_grad()
        loss(network(seen.of(batch)), clicked[batch]).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        odds = [network(seen.of(slice(start, start + 8192))) for start in range(trained, len(seen.user), 8192)]
    return torch.sigmoid(torch.cat(odds).double()).numpy()


def _rows(
    data: TrainingSet, features: Features, clicks: ClickIndex, rows: NDArray[np.int64], known: NDArray[np.bool_]
) -> NetworkInputs:
    user, product = (_codes_of_training(each[rows], known) for each in (data.user, data.product))
    window = clicks.window(rows, HISTORY)
    clicked = np.append(clicks.rows, -1)[window]
    code_of = np.zeros(int(data.product.max()) + 1, np.int64)
    code_of[data.product[rows]] = product
    history = np.where(clicked >= 0, code_of[data.product[clicked]], -1)
    dense, categories = [], []
    for name, values in features.items():
        if name in ("user_id", "product_id"):
            continue
        if np.issubdtype(values.dtype, np.integer):
            categories.append((hash_name(name) + 7_919 * (values[rows].astype(np.int64) + 1)) % CATEGORY_ROWS)
        else:
            dense += _standardized(values[rows], known)
    return NetworkInputs(
        user=torch.from_numpy(user),
        product=torch.from_numpy(product),
        history=torch.from_numpy(history),
        dense=torch.from_numpy(_matrix(dense, len(rows), np.float32)),
        categories=torch.from_numpy(_matrix(categories, len(rows), np.int64)),
    )


def hash_name(name: str) -> int:
    """The same number for a name in every process."""
    return int.from_bytes(name.encode()[-6:], "little")


def _codes_of_training(codes: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Codes from 1 of the values that the known rows have, 0 for the others."""
    values = np.unique(codes[known])
    place = np.minimum(np.searchsorted(values, codes), len(values) - 1)
    return np.where(values[place] == codes, place + 1, 0)


def _standardized(values: NDArray[np.float32], known: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """By mean and spread of the known rows; a flag beside it where some of those lack it. Nothing if it is constant."""
    missing = np.isnan(values)
    there = values[known & ~missing]
    flags = [missing.astype(np.float32)] if missing[known].any() and not missing[known].all() else []
    if not len(there) or not (spread := float(there.std(dtype=np.float64))) > 0:
        return flags
    scaled = (np.where(missing, there.mean(dtype=np.float64), values) - there.mean(dtype=np.float64)) / spread
    return [np.clip(scaled, -CLIP, CLIP).astype(np.float32), *flags]


def _matrix(columns: list[NDArray[Any]], rows: int, kind: type) -> NDArray[Any]:
    return np.stack(columns, axis=1).astype(kind) if columns else np.zeros((rows, 0), kind)
