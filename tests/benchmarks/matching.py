"""The pair verifier on Abt-Buy: fitted on train, threshold chosen on valid, tested once.

    python -m tests.benchmarks.matching --data DIR

DIR holds train.txt, valid.txt and test.txt. Prints precision, recall and F1 on test with 95% intervals over resampled
pairs, and the CPU seconds from the texts to the figures:

    cosine of titles   TF-IDF cosine of the words of the titles; its threshold on valid
    no pair seen       the verifier, learned from titles alone: two products of two shops whose titles are each other's
                       nearest count as the same, the other near ones as different. Its own threshold, on those
    verifier           the verifier, learned from the pairs of train
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from numpy.typing import NDArray

from feature_repo.pairs.features import PAIR_FEATURES, compute_pair_features
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.prepared import PreparedProducts
from producers.datasets.imports import abt_buy
from producers.groups.train import choose_threshold, prepare_catalogue, train_verifier

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEAREST = 10
"""Nearest titles of the other shop that are compared where no pair is seen."""
DRAWS = 1_000


@dataclass(frozen=True)
class MatchingFigure:
    """One row of the result."""

    what: str
    precision: float
    recall: float
    f1: float
    low: float
    """Lower end of the 95% interval of F1."""
    high: float
    cpu_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.what:18} F1 {self.f1:.3f} ({self.low:.3f} to {self.high:.3f}), precision {self.precision:.3f}, "
            f"recall {self.recall:.3f}, {self.cpu_seconds:.1f} CPU seconds"
        )


def measure(data: Path) -> list[MatchingFigure]:
    """Return the figures of the folder of Abt-Buy."""
    start = time.process_time()
    tables = abt_buy.read(data, NOW).tables
    products, statistics = prepare_catalogue(tables["products"])
    pairs = {split: _select(tables, split) for split in abt_buy.SPLITS}
    prepared = time.process_time() - start

    def score(what: str, valid: Floats, test: Floats, threshold: float | None, since: float) -> MatchingFigure:
        if threshold is None:
            threshold, _ = choose_threshold(valid, pairs["valid"].is_same, pairs["valid"].weight)
        seconds = prepared + time.process_time() - since
        return _score(what, pairs["test"].is_same, test >= threshold, seconds)

    since = time.process_time()
    cosine = [_compare_titles(products, pairs[split]) for split in ("valid", "test")]
    figures = [score("cosine of titles", cosine[0], cosine[1], None, since)]
    for what, labels in (("no pair seen", _guess_pairs(products, tables["products"])), ("verifier", pairs["train"])):
        since = time.process_time()
        verifier = train_verifier(products, statistics, labels, encoder_version="", seed=0, now=NOW).verifier
        valid, test = (
            verifier.score_pairs(products, pairs[split].left, pairs[split].right) for split in ("valid", "test")
        )
        figures.append(score(what, valid, test, verifier.threshold if what == "no pair seen" else None, since))
    return figures


def _select(tables: dict[str, pa.Table], split: str) -> LabelledPairs:
    """Return the pairs of a split."""
    pairs = tables["pairs"].filter(pc.field("split") == split)
    ids = tables["products"]["product_id"].combine_chunks()
    left, right = (pc.index_in(pairs[side], value_set=ids).to_numpy().astype(np.int64) for side in ("left", "right"))
    return LabelledPairs(left, right, pairs["same"].to_numpy().astype(bool), np.ones(len(pairs)))


def _compare_titles(products: PreparedProducts, pairs: LabelledPairs) -> Floats:
    features = compute_pair_features(products, pairs.left, pairs.right)
    return features[:, PAIR_FEATURES.index("title_words")]


def _guess_pairs(products: PreparedProducts, table: pa.Table) -> LabelledPairs:
    """Return near pairs of titles of two shops; those that are each other's nearest are guessed to be the same."""
    is_abt = np.array([one.startswith(abt_buy.SHOPS[0]) for one in table["product_id"].to_pylist()])
    abt, buy = np.flatnonzero(is_abt), np.flatnonzero(~is_abt)
    cosine = (products.title[abt] @ products.title[buy].T).toarray()
    near = np.argsort(-cosine, axis=1)[:, :NEAREST]
    row = np.repeat(np.arange(len(abt)), NEAREST)
    column = near.ravel()
    is_mutual = (cosine.argmax(axis=1)[row] == column) & (cosine.argmax(axis=0)[column] == row)
    return LabelledPairs(abt[row], buy[column], is_mutual, np.ones(len(row)))


def _score(what: str, truth: Bools, predicted: Bools, seconds: float) -> MatchingFigure:
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(truth), (DRAWS, len(truth)))
    low, high = np.quantile([_measure_f1(truth[draw], predicted[draw]) for draw in draws], [0.025, 0.975])
    hits = int((truth & predicted).sum())
    precision, recall = hits / max(1, int(predicted.sum())), hits / int(truth.sum())
    return MatchingFigure(what, precision, recall, _measure_f1(truth, predicted), float(low), float(high), seconds)


def _measure_f1(truth: Bools, predicted: Bools) -> float:
    return 2 * float((truth & predicted).sum()) / max(1.0, float(truth.sum() + predicted.sum()))


def main(data: Annotated[Path, typer.Option(help="The folder of Abt-Buy.")]) -> None:
    for figure in measure(data):
        print(figure)


if __name__ == "__main__":
    typer.run(main)
