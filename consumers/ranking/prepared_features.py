"""The features of every group, computed, checked for leaks and binned once for all rankers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import lightgbm_ranker
from consumers.ranking.baseline_features import compute_baseline, map_context_columns
from consumers.ranking.content_features import FeatureGroup, compute_groups, fit_projection
from consumers.ranking.leakage import find_leaks, reject_leaks
from consumers.ranking.lightgbm_ranker import BinnedFeatures
from consumers.ranking.plan import BASE
from consumers.ranking.splits import RowSplit
from consumers.ranking.training_set import RankingTrainingSet
from feature_repo import schema
from feature_repo.cores import map_on_all_cores
from feature_repo.errors import InvalidInputError


@dataclass(frozen=True)
class PreparedFeatures:
    """The inputs of every ranker of one measurement."""

    data: RankingTrainingSet
    """The joined log of n impressions."""
    split: RowSplit
    """Which of them are trained on and scored."""
    test_start: int
    """First microsecond of the test, in microseconds since 1970 UTC."""
    projection: NDArray[np.float32] | None
    """Axes that project fused vectors to a few dimensions [d, COMPONENTS]; None if no vectors are joined."""
    base: lightgbm_ranker.Features
    """The baseline's features [n]."""
    groups: Mapping[str, FeatureGroup]
    """Group to its features [n]."""
    binned_base: BinnedFeatures
    """The baseline's features of the rows before the test, in bins, and of the scored rows."""
    binned_groups: Mapping[str, BinnedFeatures]
    """Group to the same of its features; in the order of `groups`."""

    def select(self, groups: Collection[str]) -> list[BinnedFeatures]:
        """Return the binned features of the baseline, then of some groups, in the order of `groups` of this object."""
        return [self.binned_base, *(binned for name, binned in self.binned_groups.items() if name in groups)]

    def bin(self, features: lightgbm_ranker.Features) -> BinnedFeatures:
        """Bin the rows before the test of other features of this log.

        Args:
            features: name to float32 [n], or to int32 category codes [n].

        Returns:
            The rows before the test in bins, and the validation and test rows to score.
        """
        return lightgbm_ranker.bin_features(features, self.data.clicked, self.split.train, self.split.scored)


def prepare_features(data: RankingTrainingSet, split: RowSplit, test_start: int) -> PreparedFeatures:
    """Compute every feature, stop if one leaks, and bin all of them.

    Args:
        data: the joined log.
        split: which of its rows are trained on and scored.
        test_start: first microsecond of the test, in microseconds since 1970 UTC; the projection of the vectors is
            fitted to versions from before it.

    Returns:
        The features of the baseline and of every group whose view is joined.

    Raises:
        InvalidInputError: no group of features can be computed, or a feature holds future information.
        CorruptDataError: the vectors of one column have different lengths.
    """
    embedding = data.views.get(schema.EMBEDDING_TABLE)
    projection = fit_projection(embedding, test_start) if embedding is not None else None
    computations: list[Callable[[], Any]] = [partial(compute_baseline, data), partial(compute_groups, data, projection)]
    base, groups = map_on_all_cores(lambda compute: compute(), computations)
    if not groups:
        raise InvalidInputError(
            "the feature service has neither product_embedding nor product_tags, so there is nothing to compare; "
            "name another one with --features"
        )
    reject_leaks(find_leaks(data, {BASE: base, **groups}, map_context_columns(data)))
    bin_group = partial(lightgbm_ranker.bin_features, clicked=data.clicked, train=split.train, scored=split.scored)
    binned_base, *binned_groups = map_on_all_cores(bin_group, [base, *groups.values()])
    return PreparedFeatures(
        data, split, test_start, projection, base, groups, binned_base, dict(zip(groups, binned_groups, strict=True))
    )
