"""Both encoder versions on a log: next-click hit rate, and the AUC of a ranker that has all features.

Both versions are joined to the same impressions, as of their own times, and both rankers train on the same rows with
the same seeds. The difference has an interval over drawn users and products.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from consumers.gate.options import ClickLogOptions
from consumers.ranking import lightgbm_ranker, proxies
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.bootstrap import average_rankers, draw_weights, percentile_interval
from consumers.ranking.content_features import compute_groups, fit_projection
from consumers.ranking.joined_log import read_and_join
from consumers.ranking.leakage import check_log
from consumers.ranking.slices import slice_test_rows
from consumers.ranking.splits import find_test_start
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo import schema
from feature_repo.config import Settings

ALL_ROWS = "all rows"
"""Name of the slice with every test row."""


@dataclass(frozen=True)
class Difference:
    """AUC with the candidate minus AUC with the version in production, on some test rows."""

    value: float
    """The difference."""
    low: float
    """Lower bound of the 95% interval, users and products drawn; NaN if it is undefined."""
    high: float
    """Upper bound."""
    rows: int
    """Test rows."""


@dataclass(frozen=True)
class ClickMeasures:
    """Measures of both versions on a log."""

    hit_rate: tuple[float, float]
    """Next-click hit rate in production and of the candidate (consumers/ranking/proxies.py)."""
    auc: Mapping[str, Difference]
    """Slice of the test rows to the difference in AUC; ALL_ROWS first."""


def measure_clicks(
    settings: Settings,
    log: ClickLogOptions,
    versions: tuple[str, str],
    *,
    now: datetime,
) -> ClickMeasures:
    """Measure both versions on a log.

    Args:
        settings: the deployment.
        log: the log, a file with the columns of `schema.IMPRESSIONS` and any context columns.
        versions: the encoder version in production, and the candidate.
        now: time of the measurement, with a time zone; later impressions are refused.

    Raises:
        NotFoundError: the log or the feature service does not exist.
        InvalidInputError: the log is unusable or cannot be split.
    """
    joined = [
        read_and_join(
            settings, log.impressions, log.service, now, encoder_version=version, table_format=log.table_format
        )[0]
        for version in versions
    ]
    data = joined[0]
    check_log(data, str(log.impressions))
    start = find_test_start(data, None)
    test = data.timestamp_us >= start
    weights = draw_weights(data, test, log.replicates, seed=0)
    scores = [score_all_features(each, test, start, range(log.seeds)) for each in joined]
    slices = {ALL_ROWS: np.ones(int(test.sum()), bool), **slice_test_rows(data, test)}
    auc = {}
    for name, rows in slices.items():
        before, after = (weights.compute_two_way_auc(each, rows) for each in scores)
        difference = average_rankers(after - before, seed=0)
        auc[name] = Difference(float(difference[0]), *percentile_interval(difference), int(rows.sum()))
    hit_rates = [proxies.next_click_hit_rate(each, test) for each in joined]
    return ClickMeasures((hit_rates[0], hit_rates[1]), auc)


def score_all_features(
    data: RankingTrainingSet, test: NDArray[np.bool_], start: int, seeds: range
) -> NDArray[np.float64]:
    """Train a ranker with every feature on the rows before the test, and return its scores of the test rows.

    Args:
        data: impressions and features of one encoder version.
        test: whether each row is one of the test.
        start: time of the first test row, microseconds since 1970 UTC.
        seeds: of the rankers, one for each.

    Returns:
        Scores [seeds, test rows].
    """
    embedding = data.views.get(schema.EMBEDDING_TABLE)
    features = dict(compute_baseline(data))
    for group in compute_groups(data, fit_projection(embedding, start) if embedding is not None else None).values():
        features |= group
    return lightgbm_ranker.fit_and_score(features, data.clicked, ~test, test, list(seeds))
