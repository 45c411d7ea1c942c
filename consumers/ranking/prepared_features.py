"""What every ranker is put together of: the features of each group, searched for leaks and sorted into bins once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consumers.ranking import lightgbm_ranker
from consumers.ranking.baseline_features import names_of_context, tabular_features
from consumers.ranking.content_features import Group, feature_groups, fit_projection
from consumers.ranking.leakage import every_leak, refuse_leaks
from consumers.ranking.lightgbm_ranker import Binned
from consumers.ranking.plan import BASE, Split
from consumers.ranking.training_set import TrainingSet
from feature_repo import schema
from feature_repo.cores import on_every_core
from feature_repo.errors import VitrineError


@dataclass(frozen=True)
class Material:
    """What every ranker is put together of."""

    data: TrainingSet
    split: Split
    start: int
    """First microsecond of the test."""
    projection: NDArray[np.float32] | None
    """As `feature_groups` takes it."""
    base: lightgbm_ranker.Features
    groups: Mapping[str, Group]
    binned_base: Binned
    binned_groups: Mapping[str, Binned]

    @property
    def everything(self) -> list[Binned]:
        """The baseline and all groups."""
        return [self.binned_base, *self.binned_groups.values()]

    def bin(self, features: lightgbm_ranker.Features) -> Binned:
        """Sort other features of the same rows into bins."""
        return lightgbm_ranker.binned(features, self.data.clicked, self.split.train, self.split.judged)


def prepare(data: TrainingSet, split: Split, start: int) -> Material:
    """Compute every feature, refuse those that leak, and sort the others into bins.

    Raises:
        VitrineError: nothing to compare, or a feature that knows what it cannot.
    """
    embedding = data.views.get(schema.EMBEDDING_TABLE)
    projection = fit_projection(embedding, start) if embedding is not None else None
    todo: list[Callable[[], Any]] = [partial(tabular_features, data), partial(feature_groups, data, projection)]
    base, groups = on_every_core(lambda compute: compute(), todo)
    if not groups:
        raise VitrineError("the feature service has neither product_embedding nor product_tags; nothing to compare")
    refuse_leaks(every_leak(data, {BASE: base, **groups}, names_of_context(data)))
    sort = partial(lightgbm_ranker.binned, clicked=data.clicked, train=split.train, judged=split.judged)
    binned_base, *binned_groups = on_every_core(sort, [base, *groups.values()])
    return Material(
        data, split, start, projection, base, groups, binned_base, dict(zip(groups, binned_groups, strict=True))
    )
