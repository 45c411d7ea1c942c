"""The versions of `product_neighbours` that are out of date, interval by interval, with their features."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_repo.features import neighbours as definition
from producers.behaviour.impression_log import ImpressionLog, Int64
from producers.behaviour.nearest import NearestProducts
from producers.behaviour.neighbour_checkpoint import Checkpoint
from producers.behaviour.neighbour_digest import StateHashes
from producers.behaviour.neighbour_state import Floats, ProductState, number_products
from producers.behaviour.product_changes import ProductChanges
from producers.input_digest import Digests


@dataclass(frozen=True)
class OutdatedVersions:
    """The m versions of one interval that are written."""

    product: Int64
    """[m], product numbers."""
    event_us: Int64
    """[m], event timestamps in microseconds since 1970 UTC."""
    digests: Digests
    """[m]."""
    features: dict[str, Floats]
    """Each [m], by name."""
    already_stored: int
    """Number of further versions of the interval, which are up to date."""


def compute_versions(
    log: ImpressionLog,
    changes: ProductChanges,
    starts_us: Int64,
    interval_us: int,
    start: tuple[NearestProducts, StateHashes, Checkpoint | None],
    find_outdated: Callable[[Int64, Int64, Digests], NDArray[np.bool_]],
) -> Iterator[OutdatedVersions]:
    """Yield the outdated versions before the first interval, then those of each interval.

    Args:
        log: the impressions.
        changes: the changes of products.
        starts_us: [intervals], ascending.
        interval_us: length of an interval.
        start: the nearest products, of which there are none; the digests before the first change; and where to
            continue: no version before the interval of the checkpoint is looked at. All three are as of the last
            interval in the end, unless no version is outdated since the checkpoint: `nearest` then has no products.
        find_outdated: returns which versions are out of date, of product numbers, event timestamps and digests.
    """
    nearest, hashes, checkpoint = start
    number = number_products(log, changes)
    state = ProductState.create_empty(changes.vectors.shape[1])
    yield _compute_early(changes, starts_us[0], start, find_outdated)
    changes_done, impressions_done, changes_hashed = 0, 0, 0
    for start_us in starts_us:
        changes_end = int(np.searchsorted(changes.timestamp_us, start_us, "right"))
        impressions_end = int(np.searchsorted(log.timestamp_us, start_us))
        part, seen = slice(changes_done, changes_end), slice(impressions_done, impressions_end)
        state.grow(max(len(state.impressions), int(changes.product[part].max(initial=-1)) + 1))
        is_changed = changes.apply(part, state.vectors, state.price, state.age)
        state.count_impressions(number[seen], log.is_clicked[seen])
        changes_done, impressions_done = changes_end, impressions_end
        if checkpoint is not None and start_us < checkpoint.start_us:
            yield _select_nothing(0)
            continue
        if checkpoint is None or start_us > checkpoint.start_us:
            if checkpoint is not None and not len(nearest.has_history):
                checkpoint.restore(nearest)
            nearest.update(state.vectors, is_changed, state.impressions > 0)
        hashes.update(changes.product[changes_hashed:changes_end], changes.vector[changes_hashed:changes_end], state)
        changes_hashed = changes_end
        # A version at the start of the interval for every product that has a vector ...
        present = np.flatnonzero(~np.isnan(state.vectors[:, 0]))
        # ... and one for every vector that arrives within the interval.
        interval_end = int(np.searchsorted(changes.timestamp_us, start_us + interval_us))
        within = changes_end + np.flatnonzero(changes.vector[changes_end:interval_end] >= 0)
        product = np.concatenate([present, changes.product[within]])
        event_us = np.concatenate([np.full(len(present), start_us), changes.timestamp_us[within]])
        own = np.where(changes.product[within] < len(state.impressions), changes.product[within], -1)
        digests = np.concatenate([hashes.compute(present), hashes.compute(own, changes.vector[within])])
        is_outdated = find_outdated(product, event_us, digests)
        if not is_outdated.any():
            yield _select_nothing(len(product))
            continue
        if checkpoint is not None and not len(nearest.has_history):
            checkpoint.restore(nearest)
        at_start, later = is_outdated[: len(present)], is_outdated[len(present) :]
        rows = present[at_start]
        vectors, own = changes.vectors[changes.vector[within[later]]], own[later]
        features = (
            state.compute_features(rows, nearest.neighbours[rows], nearest.similarity[rows]),
            state.compute_features(own, *nearest.search(state.vectors, vectors, own)),
        )
        yield OutdatedVersions(
            product[is_outdated],
            event_us[is_outdated],
            digests[is_outdated],
            {name: np.concatenate([one[name] for one in features]) for name in definition.NAMES},
            int((~is_outdated).sum()),
        )


def _compute_early(
    changes: ProductChanges,
    first_us: int,
    start: tuple[NearestProducts, StateHashes, Checkpoint | None],
    find_outdated: Callable[[Int64, Int64, Digests], NDArray[np.bool_]],
) -> OutdatedVersions:
    """Return the outdated versions before the first interval, when no product had an impression."""
    nearest, hashes, checkpoint = start
    if checkpoint is not None:
        return _select_nothing(checkpoint.versions)
    early = np.flatnonzero((changes.vector >= 0) & (changes.timestamp_us < first_us))
    digests = hashes.compute_early(len(early))
    is_outdated = find_outdated(changes.product[early], changes.timestamp_us[early], digests)
    written = early[is_outdated]
    shape, state = (len(written), nearest.k), ProductState.create_empty(changes.vectors.shape[1])
    return OutdatedVersions(
        changes.product[written],
        changes.timestamp_us[written],
        digests[is_outdated],
        state.compute_features(np.full(len(written), -1), np.full(shape, -1), np.full(shape, np.nan, np.float32)),
        len(early) - len(written),
    )


def _select_nothing(already_stored: int) -> OutdatedVersions:
    none = np.empty(0, np.int64)
    return OutdatedVersions(none, none, none.view(np.uint64), {}, already_stored)
