"""The cards of a deployment, from Feast's registry, the tables, the run log and the checks of the monitoring."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from feast import FeatureStore, FeatureView

from consumers.cards.card import FeatureCard, FeatureEntry, LastRun, ModelVersion, OnlineCost
from consumers.cards.lift_file import LiftFile
from consumers.cards.table import ServedTable
from consumers.monitoring.drift import check as drift_check
from consumers.monitoring.drift.check import Drift
from consumers.monitoring.freshness import freshness as freshness_check
from consumers.monitoring.freshness.freshness import RUNS_READ, Freshness
from consumers.ranking.costs import CANDIDATES, measure_fetch_costs
from feature_repo import run_log
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError, UnavailableError
from feature_repo.features import meanings
from feature_repo.offline import delta, encoder_licence
from feature_repo.run_log import RunRecord
from feature_repo.schema import ENCODER_VERSION
from feature_repo.stores.feature_store import open_feature_store
from feature_repo.views.affinity import user_product_affinity
from feature_repo.views.view_tags import COMPARABLE_WITHIN, PRODUCER, PRODUCERS

VERSION_SUFFIX = "_version"
"""End of the names of columns with a model version."""
DRIFT_WINDOW, DRIFT_BEFORE = timedelta(days=7), timedelta(days=28)
"""The windows that drift is measured between, as in `consume drift`."""
DRIFT_SAMPLE = 2_000
"""Products on each side, as in `consume drift`."""


def collect_cards(
    settings: Settings,
    *,
    now: datetime,
    max_age: timedelta,
    checks_per_alarm: int,
    lift: LiftFile | None,
    progress: Callable[[str], None],
) -> list[FeatureCard]:
    """Return a card for each feature view of Feast's registry, in the order in which they are computed.

    Views that Vitrine does not write come next, by name, and those that are computed on request last. Nothing is
    written.

    Args:
        settings: the deployment.
        now: the time that ages are relative to; rows with a later event timestamp do not count.
        max_age: allowed age of a view's newest event, as in `consume freshness`.
        checks_per_alarm: one false alarm of drift in this many checks, as in `consume drift`.
        lift: the measurement that lifts come from; None leaves them out.
        progress: called with what is measured next.

    Raises:
        NotFoundError: the registry has no feature view, or there is no catalogue.
        UnavailableError: the registry or the online store does not answer.
        CorruptDataError: a table is damaged.
    """
    store = open_feature_store(settings)
    views = [*store.list_batch_feature_views(), *store.list_on_demand_feature_views()]
    if not views:
        raise NotFoundError(f"no feature view in the registry of {settings.file}; run `feast apply`")
    progress("freshness")
    fresh = freshness_check.check(settings, max_age=max_age, now=now)
    progress("drift")
    drift = drift_check.check(
        settings,
        now=now,
        window=DRIFT_WINDOW,
        before=DRIFT_BEFORE,
        checks_per_alarm=checks_per_alarm,
        sample=DRIFT_SAMPLE,
        seed=0,
    )
    facts = _DeploymentFacts(
        settings,
        now,
        _list_services(store),
        _read_meanings(store),
        fresh,
        drift,
        _read_last_runs(settings),
        encoder_licence.read(settings),
        lift,
    )
    computed = list(PRODUCERS)
    cards = []
    for view in sorted(views, key=lambda one: (_is_on_demand(one), _rank(one.name, computed), one.name)):
        progress(view.name)
        cards.append(_collect_card(view, facts))
    return cards


@dataclass(frozen=True)
class _DeploymentFacts:
    """What is known of a deployment, of all views together."""

    settings: Settings
    now: datetime
    services: Mapping[str, Sequence[str]]
    """View -> the feature services that have features of it."""
    meanings: Mapping[tuple[str, str], str]
    """View and feature -> description."""
    freshness: Freshness
    drift: Drift
    runs: Mapping[str, LastRun]
    """Command -> its last run."""
    licences: Mapping[str, str]
    """Encoder version -> licence."""
    lift: LiftFile | None


def _collect_card(view: Any, facts: _DeploymentFacts) -> FeatureCard:
    """Return the card of a view of Feast's."""
    is_on_demand = _is_on_demand(view)
    table = None if is_on_demand else _open_table(facts.settings, view, facts.now)
    names = [field.name for field in view.features]
    missing = table.measure_missing(names) if table else {}
    producer = view.tags.get(PRODUCER, "")
    drift_prefix = (f"{view.name}:", f"{view.name},")
    return FeatureCard(
        view=view.name,
        is_on_demand=is_on_demand,
        description=view.description,
        owner=view.owner,
        producer=producer,
        entities=[] if is_on_demand else list(view.entities),
        services=facts.services.get(view.name, ()),
        features=[
            FeatureEntry(
                field.name,
                str(field.dtype),
                facts.meanings.get((view.name, field.name), ""),
                field.tags.get("storage", "plain"),
                missing.get(field.name),
            )
            for field in view.features
        ],
        table=table.measure_size() if table else None,
        versions=_list_versions(table, names, facts.licences) if table else (),
        comparable_within=view.tags.get(COMPARABLE_WITHIN),
        last_run=facts.runs.get(producer),
        online=_measure_online(facts.settings, view.name, table) if table else None,
        freshness=next((one for one in facts.freshness.views if one.view == view.name), None),
        active=facts.freshness.active,
        drift=[one for one in facts.drift.statistics if one.view == view.name],
        drift_notes=[
            *(line for line in facts.drift.changed if line.startswith(drift_prefix)),
            *(f"Not compared: {line}" for line in facts.drift.not_judged if line.startswith(drift_prefix)),
        ],
        lift=facts.lift.summarize_view(view.name) if facts.lift else None,
    )


def _is_on_demand(view: Any) -> bool:
    return not isinstance(view, FeatureView)


def _rank(name: str, computed: Sequence[str]) -> int:
    return computed.index(name) if name in computed else len(computed)


def _open_table(settings: Settings, view: FeatureView, now: datetime) -> ServedTable | None:
    """Return the table of a view; None without one, as for sources that are no Delta tables of this deployment."""
    path = settings.table(getattr(view.batch_source, "path", None) or view.name)
    return ServedTable(path, sorted(view.join_keys), now) if delta.exists(path) else None


def _list_versions(table: ServedTable, features: Sequence[str], licences: Mapping[str, str]) -> list[ModelVersion]:
    columns = [name for name in features if name.endswith(VERSION_SUFFIX) and name in table.columns]
    return [
        ModelVersion(column, version, rows, is_served, licences.get(version) if column == ENCODER_VERSION else None)
        for column in columns
        for version, rows, is_served in table.count_versions(column)
    ]


def _measure_online(settings: Settings, view: str, table: ServedTable) -> OnlineCost | None:
    cost = measure_fetch_costs(settings, table.read_ids()[:CANDIDATES], [(view,)]).get((view,))
    return OnlineCost(cost.bytes_per_candidate, cost.milliseconds, CANDIDATES) if cost else None


def _list_services(store: FeatureStore) -> dict[str, list[str]]:
    """Return the feature services of each view, by name."""
    services: dict[str, list[str]] = {}
    for service in sorted(store.list_feature_services(), key=lambda one: one.name):
        for projection in service.feature_view_projections:
            services.setdefault(projection.name, []).append(service.name)
    return services


def _read_meanings(store: FeatureStore) -> dict[tuple[str, str], str]:
    """Return the description of each feature by view and name; Feast keeps none for the affinity features."""
    views = (*store.list_feature_views(), *store.list_on_demand_feature_views())
    found = {(view.name, field.name): field.description for view in views for field in view.features}
    return found | {(user_product_affinity.name, name): meaning for name, meaning in meanings.AFFINITY.items()}


def _read_last_runs(settings: Settings) -> dict[str, LastRun]:
    """Return the last run that ended well of each command; empty if the run log cannot be read."""
    runs: list[RunRecord] = []
    with suppress(UnavailableError, InvalidInputError):  # a card without it is still right
        runs = run_log.read_last_runs(settings, RUNS_READ)
    return {
        f"produce {run.step}": LastRun(run.ended, (run.ended - run.started).total_seconds(), run.model)
        for run in reversed(runs)
        if run.ending == run_log.DONE and run.ended
    }
