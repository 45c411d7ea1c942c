"""Cost of stored vectors to a ranker: AUC with affinity features of stored vectors, against exact ones.

The ranker is trained and tested on what it would be served: vectors of candidates and of last clicks, and user
interests, all encoded to rows of the storage and decoded again. An interest is the mean of exact vectors and is then
stored itself, as `produce interests` and materialization do. Rows, seeds and draws are the same for every storage.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from consumers.ranking import lightgbm_ranker
from consumers.ranking.baseline_features import compute_baseline
from consumers.ranking.bootstrap import Floats, average_rankers, draw_weights, percentile_interval
from consumers.ranking.click_counts import index_clicks
from consumers.ranking.content_features import FeatureGroup, compute_groups
from consumers.ranking.splits import find_test_start
from consumers.ranking.training_set import JoinedView, RankingTrainingSet, gather_rows
from feature_repo.arrow.field import STORAGES
from feature_repo.features.interest import Clicks, compute_interest_histories
from feature_repo.features.similarity import compute_pair_cosines
from feature_repo.schema import CHILD_AGES, CHILD_GENDERS, USER_ID
from tests.benchmarks.stored_vectors import round_trip, to_lists

VIEW = "product_embedding"
INTERESTS = {
    "fused_vector": "affinity_interest_cosine",
    "image_vector": "image_interest_cosine",
    "text_vector": "text_interest_cosine",
}
"""Vector column to the feature that compares it with the mean of the user's clicks."""
NONE = "no vectors"
EXACT = "float32"


@dataclass(frozen=True)
class AucLine:
    """The AUC of one ranker, and its difference from the one with exact vectors."""

    name: str
    auc: float
    """Mean over seeds."""
    difference: float
    """AUC minus that of EXACT, mean over seeds."""
    ci95: tuple[float, float]
    """95% interval of the difference, users drawn."""


@dataclass(frozen=True)
class AucByStorage:
    """The AUC of every storage on one log."""

    lines: list[AucLine]
    train: int
    test: int


def sample_users(impressions: pa.Table, rows: int) -> pa.Table:
    """Return all impressions of randomly drawn users, until there are `rows`; histories stay complete."""
    encoded = impressions[USER_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    counts = np.bincount(encoded)
    order = np.random.default_rng(0).permutation(len(counts))
    enough = int(np.searchsorted(np.cumsum(counts[order]), rows)) + 1
    return impressions.filter(pa.array(np.isin(encoded, order[:enough])))


def measure_auc(
    data: RankingTrainingSet, *, test_days: float | None, seeds: int, replicates: int, progress: Callable[[str], None]
) -> AucByStorage:
    """Train the baseline, and rankers with affinity features of the vectors in each storage.

    Args:
        data: the joined log, with the view VIEW.
        test_days: length of the test, as in `find_test_start`.
        seeds: training seeds.
        replicates: number of bootstrap draws of users.
        progress: called with the name of each ranker before it is trained.
    """
    test = data.timestamp_us >= find_test_start(data, test_days)
    base = lightgbm_ranker.bin_features(compute_baseline(data), data.clicked, ~test, test)
    drawn = draw_weights(data, test, replicates, 0)

    def auc(name: str, *groups: lightgbm_ranker.BinnedFeatures) -> Floats:
        progress(name)
        return drawn.compute_metric("auc", lightgbm_ranker.fit([base, *groups], range(seeds)).scores)

    of = {NONE: auc(NONE)}
    for storage in STORAGES:
        group = compute_stored_affinity(data, storage)
        of[storage] = auc(storage, lightgbm_ranker.bin_features(group, data.clicked, ~test, test))
    lines = []
    for name, values in of.items():
        difference = average_rankers(values - of[EXACT], 0)
        lines.append(AucLine(name, float(values[:, 0].mean()), float(difference[0]), percentile_interval(difference)))
    return AucByStorage(lines, int((~test).sum()), int(test.sum()))


def compute_stored_affinity(data: RankingTrainingSet, storage: str) -> FeatureGroup:
    """Return the affinity group computed from stored vectors and interests, float32 [n] each."""
    view = data.views[VIEW]
    exact = {name: view.vectors(name) for name in INTERESTS if name in view.versions.column_names}
    versions = view.versions
    for name, vectors in exact.items():
        index = versions.schema.get_field_index(name)
        versions = versions.set_column(index, name, to_lists(_stored(vectors, storage)))
    stored = replace(view, versions=versions)
    group = compute_groups(data.with_views({**data.views, VIEW: stored}), None)["affinity"]
    for name, vectors in exact.items():
        group[INTERESTS[name]] = _interest_cosine(data, view, vectors, storage)
    return group


def _interest_cosine(
    data: RankingTrainingSet, view: JoinedView, vectors: NDArray[np.float32], storage: str
) -> NDArray[np.float32]:
    """Cosine of each row's stored vector and its user's stored interest, a mean of exact vectors [n]."""
    clicks = index_clicks(data.user, data.timestamp_us, data.clicked)
    row = np.where(np.append(~np.isnan(vectors[:, 0]), False)[view.row_index], view.row_index, -1)
    nothing = [np.full((len(clicks.rows), len(labels)), np.nan, np.float32) for labels in (CHILD_AGES, CHILD_GENDERS)]
    click = Clicks(gather_rows(vectors, row[clicks.rows]), *nothing, data.timestamp_us[clicks.rows])
    starts = np.searchsorted(data.user[clicks.rows], np.arange(int(data.user.max()) + 2))
    means = _stored(compute_interest_histories(click, starts).vector, storage)
    last = np.where(clicks.before > 0, clicks.end - 1, -1)
    return compute_pair_cosines(row, np.nan_to_num(_stored(vectors, storage)), last, np.nan_to_num(means))


def _stored(vectors: NDArray[np.float32], storage: str) -> NDArray[np.float32]:
    """Vectors after encoding and decoding [n, d]; rows of NaN stay."""
    present = ~np.isnan(vectors[:, 0])
    result = np.full_like(vectors, np.nan)
    if present.any():
        result[present] = round_trip(vectors[present], storage)[0]
    return result
