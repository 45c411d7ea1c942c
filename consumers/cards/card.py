"""What a feature card says. Field names are keys of the JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from consumers.monitoring.drift.check import DriftStatistic
from consumers.monitoring.freshness.freshness import ViewFreshness
from consumers.ranking.lift import Comparison


@dataclass(frozen=True)
class FeatureEntry:
    """One feature of a view."""

    name: str
    type: str
    """Feast's type."""
    meaning: str
    """Its description in Feast's registry; empty if it has none."""
    storage: str
    """How the online store keeps it: "plain", "float16", "dictionary", ..."""
    missing_share: float | None
    """Share of the entities, in their newest row, for which it is null or NaN. None if there is no such column, or no
    row."""


@dataclass(frozen=True)
class ModelVersion:
    """The rows of one version of a model."""

    column: str
    """Name of the column, such as `encoder_version`."""
    version: str
    rows: int
    """Rows of this version in the table."""
    is_newest: bool
    """Whether a row that readers get has this version."""
    licence: str | None
    """Licence of an encoder; None if it is not stated, and for other models."""


@dataclass(frozen=True)
class StoredTable:
    """A view's table."""

    rows: int
    """Rows of all versions."""
    entities: int
    """Entities with a row that readers get."""
    bytes: int
    """Size of the table's current files."""


@dataclass(frozen=True)
class OnlineCost:
    """A view in the online store."""

    bytes_per_entity: int
    """Stored bytes of one entity, a mean."""
    fetch_ms: float
    """Milliseconds of one request for `entities_per_request` entities, median."""
    entities_per_request: int


@dataclass(frozen=True)
class LastRun:
    """The last run of the command that writes a view, if it ended well."""

    ended: datetime
    seconds: float
    model: str | None
    """Version of the model that it used."""


@dataclass(frozen=True)
class GroupWorth:
    """What one group of a ranker's features is worth, as `consume lift` measured it."""

    group: str
    meaning: str
    verdict: str
    """keep, drop or not proven; decided on the days before the test."""
    comparisons: Sequence[Comparison]
    """In AUC on the test days: the group added to the baseline on all rows, over its placebo, taken away from all
    features, then added to the baseline on each slice."""


@dataclass(frozen=True)
class LiftSummary:
    """The measurement that a card takes its lifts from."""

    file: str
    date: str | None
    """When it began, ISO 8601; None if the file does not say."""
    encoder_version: str | None
    """Encoder of the features that were measured; None if no view had one."""
    groups: Sequence[GroupWorth]
    """The groups that need this view."""


@dataclass(frozen=True)
class FeatureCard:
    """Everything that is known about one feature view."""

    view: str
    is_on_demand: bool
    """Whether it is computed on request, and so has no table."""
    description: str
    owner: str
    """Empty if the registry has none."""
    producer: str
    """The command that writes it."""
    entities: Sequence[str]
    services: Sequence[str]
    """Feature services that have features of it."""
    features: Sequence[FeatureEntry]
    table: StoredTable | None
    """None without a table."""
    versions: Sequence[ModelVersion]
    comparable_within: str | None
    """Column of the model version within which its values may be compared; None if all may."""
    last_run: LastRun | None
    online: OnlineCost | None
    """None if it is not in the online store."""
    freshness: ViewFreshness | None
    """None if `consume freshness` does not check the view."""
    active: int | None
    """Products on sale; None if that is not known."""
    drift: Sequence[DriftStatistic]
    """Statistics of `consume drift`; empty if it compares nothing in this view."""
    drift_notes: Sequence[str]
    """What could not be compared, or has changed, in one line each."""
    lift: LiftSummary | None
    """None if there is no measurement."""

    @property
    def varying_drift(self) -> list[DriftStatistic]:
        """The statistics that are not the same for every permutation, or are above their threshold."""
        return [statistic for statistic in self.drift if np.isfinite(statistic.threshold) or statistic.is_alarm]

    @property
    def drifted(self) -> list[DriftStatistic]:
        """The statistics above their threshold."""
        return [statistic for statistic in self.drift if statistic.is_alarm]

    @property
    def other_versions(self) -> list[str]:
        """Versions in the table whose values must not be compared with those that readers get."""
        return [one.version for one in self.versions if one.column == self.comparable_within and not one.is_newest]


@dataclass(frozen=True)
class CardList:
    """All cards of a deployment."""

    now: datetime
    """The time of the cards, with a time zone."""
    cards: Sequence[FeatureCard]
