"""A deep interest network (DIN, Zhou et al. 2018): a ranker in torch that attends to the user's clicks.

The ids of the candidate and of the user's last clicks are embedded. An attention network weights each click by its
relation to the candidate, without a softmax, as in the paper. The weighted sum goes into a multilayer perceptron with
the user, the candidate, the product of candidate and sum, the dense features and the categories. Ids that are not in
the training rows share one embedding. Dense features are standardized on the training rows; a missing value becomes the
mean and sets a flag. Categories share one table of hashed codes.

Training makes one pass over the rows, because a second one memorizes ids. It runs on the CPU; the same seed gives the
same scores.
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
from consumers.ranking.training_set import RankingTrainingSet

Features = Mapping[str, NDArray[Any]]

HISTORY = 20
"""Number of last clicks that are attended to."""
WIDTH = 16
"""Width of an id's embedding."""
CATEGORY_WIDTH = 4
"""Width of a category's embedding."""
CATEGORY_ROWS = 20_011
"""Rows of the table that all categories share."""
BATCH = 1024
"""Rows of one training step."""
SCORED_AT_ONCE = 8192
"""Rows that are scored in one pass."""
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-5
_SEEDING = threading.Lock()
"""Torch has one random state for all threads, so only one thread at a time draws weights and row order."""
CLIP = 5.0
"""Standardized dense features are clipped to this many standard deviations."""


@dataclass(frozen=True)
class NetworkInputs:
    """The network's inputs for n impressions (rows)."""

    user: Tensor
    """int64 [n], codes from 1; 0 for a user that is not in the training rows."""
    product: Tensor
    """int64 [n], codes from 1; 0 for a product that is not in the training rows."""
    history: Tensor
    """int64 [n, HISTORY], codes of the products last clicked before the row, the newest first; 0 for a product that is
    not in the training rows, -1 where there are fewer clicks."""
    dense: Tensor
    """float32 [n, features], standardized: mean 0 and deviation 1 in the training rows, clipped at CLIP; and flags that
    are 1 where a value is missing."""
    categories: Tensor
    """int64 [n, categories], row numbers in the table that all categories share, below CATEGORY_ROWS."""

    def select(self, rows: Tensor | slice) -> "NetworkInputs":
        """Return the inputs of some rows, in the order of `rows`.

        Args:
            rows: slice, row numbers or mask, applied to axis 0 of every tensor.
        """
        return NetworkInputs(
            *(each[rows] for each in (self.user, self.product, self.history, self.dense, self.categories))
        )


class DeepInterestNetwork(nn.Module):
    """Maps inputs to the log-odds of a click. The initial weights are drawn from torch's global random state.

    Args:
        users: number of user codes, including code 0.
        products: number of product codes, including code 0.
        dense: number of dense features of a row.
        categories: number of categories of a row.
    """

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
        """Return the log-odds of a click, float32 [n].

        Args:
            rows: the inputs of n rows, with as many dense features and categories as the network was made for.
        """
        user, candidate = self.user(rows.user), self.product(rows.product)
        interest = self.interest(candidate, rows.history)
        categories = self.category(rows.categories).flatten(1)
        inputs = torch.cat([user, candidate, interest, candidate * interest, rows.dense, categories], dim=1)
        return torch.as_tensor(self.last(self.head(inputs))).squeeze(1)

    def interest(self, candidate: Tensor, history: Tensor) -> Tensor:
        """Return the sum of the clicked products' embeddings, each weighted by its relation to the candidate.

        Weights can be negative and need not sum to 1.

        Args:
            candidate: embeddings of the candidates [n, WIDTH].
            history: product codes of the clicks [n, HISTORY], -1 for none.

        Returns:
            float32 [n, WIDTH]; zeros for a user without clicks. Clicks with code 0 count, with the embedding that all
            unknown products share.
        """
        clicked = self.product(history.clamp(min=0))
        candidates = candidate[:, None].expand_as(clicked)
        weight = self.attention(torch.cat([candidates, clicked, candidates - clicked, candidates * clicked], dim=2))
        return torch.as_tensor((clicked * weight * (history >= 0)[:, :, None]).sum(dim=1))


def fit_and_score(
    data: RankingTrainingSet,
    features: Features,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    seeds: Sequence[int],
) -> NDArray[np.float64]:
    """Train on the rows `train` of a log, once with each seed, and score the rows `test`.

    A row's history is all clicks of its user strictly before it, also those of rows that are in neither `train` nor
    `test`. Torch is limited to one thread, for the whole process and also afterwards.

    Args:
        data: the joined log [n].
        features: name to float32 [n] (a dense feature, NaN for missing) or int32 [n] (a category, -1 for missing).
            user_id and product_id are ignored, because the network embeds ids itself.
        train: row numbers to train on, ascending, with both clicked and unclicked rows.
        test: row numbers to score; at least one.
        seeds: seeds of the initial weights and of the order of the rows; at least one.

    Returns:
        Click probabilities, float64 [seeds, test rows], in the order of `seeds` and `test`.
    """
    torch.set_num_threads(1)  # several rankers are trained in parallel, one thread each
    clicks = index_clicks(data.user, data.timestamp_us, data.clicked)
    rows = np.concatenate([train, test])
    is_train = np.arange(len(rows)) < len(train)
    inputs = _make_inputs(data, features, clicks, rows, is_train)
    clicked = torch.from_numpy(data.clicked[train].astype(np.float32))
    return np.stack([_train_and_score(inputs, clicked, len(train), seed) for seed in seeds])


def _train_and_score(inputs: NetworkInputs, clicked: Tensor, train_rows: int, seed: int) -> NDArray[np.float64]:
    """Train on the first `train_rows` rows and return the click probabilities of the others."""
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DeepInterestNetwork(
            int(inputs.user.max()) + 1,
            int(max(inputs.product.max(), inputs.history.max())) + 1,
            inputs.dense.shape[1],
            inputs.categories.shape[1],
        )
        order = torch.randperm(train_rows)
    with torch.no_grad():
        share = float(clicked.mean())
        network.last.bias.fill_(float(np.log(share / (1 - share))))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = [order[start : start + BATCH] for start in range(0, train_rows, BATCH)]
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=len(batches))
    loss = nn.BCEWithLogitsLoss()
    for batch in batches:
        optimizer.zero_grad()
        loss(network(inputs.select(batch)), clicked[batch]).backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.inference_mode():
        log_odds = [
            network(inputs.select(slice(start, start + SCORED_AT_ONCE)))
            for start in range(train_rows, len(inputs.user), SCORED_AT_ONCE)
        ]
    return torch.sigmoid(torch.cat(log_odds).double()).numpy()


def _make_inputs(
    data: RankingTrainingSet,
    features: Features,
    clicks: ClickIndex,
    rows: NDArray[np.int64],
    is_train: NDArray[np.bool_],
) -> NetworkInputs:
    """The inputs for some rows of the log.

    Args:
        data: the joined log [n].
        features: its features [n].
        clicks: its clicks.
        rows: row numbers [m].
        is_train: whether each of `rows` is a training row [m].
    """
    user, product = (_encode_train_values(each[rows], is_train) for each in (data.user, data.product))
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
            dense += _standardize(values[rows], is_train)
    return NetworkInputs(
        user=torch.from_numpy(user),
        product=torch.from_numpy(product),
        history=torch.from_numpy(history),
        dense=torch.from_numpy(_matrix(dense, len(rows), np.float32)),
        categories=torch.from_numpy(_matrix(categories, len(rows), np.int64)),
    )


def hash_name(name: str) -> int:
    """Return a number below 2**48 for a name, the same in every process.

    It is made of the last 6 bytes of the name's UTF-8, so names with the same end have the same number.
    """
    return int.from_bytes(name.encode()[-6:], "little")


def _encode_train_values(codes: NDArray[np.int64], is_train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Codes from 1 for the values of the training rows, 0 for all other values."""
    values = np.unique(codes[is_train])
    position = np.minimum(np.searchsorted(values, codes), len(values) - 1)
    return np.where(values[position] == codes, position + 1, 0)


def _standardize(values: NDArray[np.float32], is_train: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Standardize by mean and deviation of the training rows; add a flag if some training values are missing.

    A feature that is constant or missing in all training rows is left out; so is the flag if all are missing.
    """
    missing = np.isnan(values)
    present = values[is_train & ~missing]
    flags = [missing.astype(np.float32)] if missing[is_train].any() and not missing[is_train].all() else []
    if not len(present) or not (deviation := float(present.std(dtype=np.float64))) > 0:
        return flags
    mean = present.mean(dtype=np.float64)
    scaled = (np.where(missing, mean, values) - mean) / deviation
    return [np.clip(scaled, -CLIP, CLIP).astype(np.float32), *flags]


def _matrix(columns: list[NDArray[Any]], rows: int, dtype: type) -> NDArray[Any]:
    """The columns side by side [rows, columns]; width 0 if there are none."""
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((rows, 0), dtype)
