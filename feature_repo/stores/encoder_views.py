"""The rows of one encoder version in the online store: written beside those in production, switched to, removed.

Each function works on all views whose tables are derived from an encoder (`schema.ENCODER_TABLES`), whatever their
names. A deployment whose definitions have not been applied has none, and nothing happens.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from feast import FeatureStore, FeatureView, FileSource

from feature_repo.arrow.timestamps import as_utc
from feature_repo.online.materialization_log import TimeWindow
from feature_repo.online.store_catalog import StoreCatalog
from feature_repo.stores import sources
from feature_repo.stores.engine import materialize_view
from feature_repo.stores.feast_compat import get_online_store
from feature_repo.stores.online import views
from feature_repo.stores.online.packed import PackedOnlineStore

log = logging.getLogger(__name__)


def write_version(store: FeatureStore, encoder_version: str, production_version: str, now: datetime) -> int:
    """Write the rows of an encoder version that are not online yet, under keys that only readers of it read.

    Only rows of event times that a view has online in production are written. A run that is killed keeps what it has
    written; the next one does the rest.

    Args:
        store: the deployment's feature store.
        encoder_version: the version whose rows to write.
        production_version: the version in production; a store that has recorded none has its rows.
        now: the last event time, with a time zone.

    Returns:
        The number of rows of the files that had some to write.

    Raises:
        ConflictError: a view was dropped or changed meanwhile.
        UnavailableError: the online store does not answer.
    """
    online, found = get_online_store(store), list_views(store)
    if not found:
        return 0
    _catalog(store).begin_upgrade(production_version)
    written = 0

    def start_progress(rows: int) -> Callable[[int], object]:
        nonlocal written
        written += rows
        return lambda done: None

    for view in found:
        window = TimeWindow(_find_start(view, now), now)
        # Also if its table does not exist yet: the view is empty then, and must be for readers of this version too.
        _catalog(store).register_view(views.stored_view(store.config, view), encoder_version)
        materialize_view(
            store.config, online, view, window, encoder_version=encoder_version, start_progress=start_progress
        )
    return written


def switch_version(store: FeatureStore, encoder_version: str, production_version: str) -> None:
    """Let readers get the rows of another encoder version, of all views at once. Nothing is written but the catalog.

    Args:
        store: the deployment's feature store.
        encoder_version: the version that readers get from now on.
        production_version: the version in production; a store that has recorded none has its rows.

    Raises:
        ConflictError: a view has no rows of this version online; nothing is changed.
        UnavailableError: the online store does not answer.
    """
    found = list_views(store)
    if found:
        _catalog(store).begin_upgrade(production_version)
        _catalog(store).switch_production(encoder_version, [views.stored_name(store.config, view) for view in found])


def drop_other_versions(store: FeatureStore) -> list[str]:
    """Remove the rows of every encoder version but the one in production; return the removed names in the store."""
    found = list_views(store)
    return (
        _catalog(store).drop_other_versions([views.stored_name(store.config, view) for view in found]) if found else []
    )


def list_views(store: FeatureStore) -> list[FeatureView]:
    """Return the views that are written online and whose tables are derived from an encoder."""
    if not isinstance(get_online_store(store), PackedOnlineStore):
        return []
    return [
        view
        for view in store.list_feature_views()
        if getattr(view, "online", True)
        and isinstance(view.batch_source, FileSource)
        and sources.is_of_encoder(store.config, view.batch_source)
    ]


def _catalog(store: FeatureStore) -> StoreCatalog:
    return get_online_store(store).online_table(store.config).catalog


def _find_start(view: FeatureView, now: datetime) -> datetime:
    """Return the first event time that `feast materialize-incremental` has written, or would write now."""
    starts = [interval[0] for interval in view.materialization_intervals] or [now - (view.ttl or timedelta(weeks=52))]
    return min(map(as_utc, starts))
