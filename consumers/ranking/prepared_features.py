"""What every ranker is put together of: the features of each group, searched for leaks and sorted into bins once."""

from collections.abc import Callable, Mapping
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
from consumers.ranking.training_set import TrainingSet
from feature_repo import schema
from feature_repo.cores import map_on_all_cores
from feature_repo.errors import VitrineError


@dataclass(frozen=True)
class PreparedFeatures:
    """What every ranker is put together of."""

    data: TrainingSet
    split: RowSplit
    start: int
    """First microsecond of the test."""
    projection: NDArray[np.float32] | None
    """As `feature_groups` takes it."""
    base: lightgbm_ranker.Features
    groups: Mapping[str, FeatureGroup]
    binned_base: BinnedFeatures
    binned_groups: Mapping[str, BinnedFeatures]

    @property
    def everything(self) -> list[BinnedFeatures]:
        """The baseline and all groups."""
        return [self.binned_base, *self.binned_groups.values()]

    def bin(self, features: lightgbm_ranker.Features) -> BinnedFeatures:
        """Sort other features of the same rows into bins."""
        return lightgbm_ranker.bin_features(features, self.data.clicked, self.split.train, self.split.judged)


def prepare_features(data: TrainingSet, split: RowSplit, start: int) -> PreparedFeatures:
    """Compute every feature, refuse those that leak, and sort the others into bins.

    Raises:
        VitrineError: nothing to compare, or a feature that knows what it cannot.
    """
    embedding = data.views.get(schema.EMBEDDING_TABLE)
    projection = fit_projection(embedding, start) if embedding is not None else None
    todo: list[Callable[[], Any]] = [partial(compute_baseline, data), partial(compute_groups, data, projection)]
    base, groups = map_on_all_cores(lambda compute: compute(), todo)
    if not groups:
        raise VitrineError("the feature service has neither product_embedding nor product_tags; nothing to compare")
    reject_leaks(find_leaks(data, {BASE: base, **groups}, map_context_columns(data)))
    sort = partial(lightgbm_ranker.bin_features, clicked=data.clicked, train=split.train, judged=split.judged)
    binned_base, *binned_groups = map_on_all_cores(sort, [base, *groups.values()])
    return PreparedFeatures(
        data, split, start, projection, base, groups, binned_base, dict(zip(groups, binned_groups, strict=True))
    )
