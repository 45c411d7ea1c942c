"""Checks of a joined log before anything is trained, and the search for features that hold future information.

A log that cannot be measured is rejected in one line. Leaks show in two ways. A joined row can say itself that it is
later than its impression, by its event timestamp or by the newest click in a user's history. And a single feature can
rank clicks better than the best rankers do: no honest feature is known to reach an AUC of IMPLAUSIBLE_AUC alone, but a
click that was counted before it happened does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import rankdata

from consumers.ranking.lightgbm_ranker import Features
from consumers.ranking.training_set import JoinedView, RankingTrainingSet
from feature_repo import schema
from feature_repo.errors import InvalidInputError
from feature_repo.features.neighbours import NAMES as NEIGHBOURS

IMPLAUSIBLE_AUC = 0.85
"""AUC of one feature alone, in either direction, that is reported as a leak."""
MAX_ROWS = 200_000
"""In a log of k times as many rows, the AUC of a single feature is computed from every k-th row; k is rounded down."""
MIN_USERS = 20
"""Minimum number of users with both a clicked and an unclicked row. Intervals draw users and need that many."""

REQUIRED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    schema.CATALOGUE_TABLE: ("category", "brand", "price"),
    schema.EMBEDDING_TABLE: ("fused_vector", "has_image", "has_text"),
    schema.TAGS_TABLE: ("category", "category_probability", "child_age_distribution", "child_gender_distribution"),
    schema.CODES_TABLE: ("codes", "semantic_id"),
    schema.NEIGHBOURS_TABLE: NEIGHBOURS,
}
"""Columns that each view must have. A feature service may leave out a whole view, but not these columns of one."""


@dataclass(frozen=True)
class Leak:
    """A feature, or a view, that holds information from after the impression."""

    feature: str
    """Name of the feature, of the view, or of a view's column as `VIEW.COLUMN`."""
    reason: str
    """How it shows, without a full stop, as the end of a message."""


def check_log(data: RankingTrainingSet, source: str) -> None:
    """Check that rankers can be trained on a joined log and that intervals can be computed.

    The first fault is raised, in the order of `Raises`.

    Args:
        data: the joined log.
        source: name of the log in the message, for example its file.

    Raises:
        InvalidInputError: a view lacks columns of REQUIRED_COLUMNS; no impression has a row in any view but the users';
            all impressions are clicked or all are unclicked; all have the same timestamp; or fewer than MIN_USERS users
            have both a clicked and an unclicked impression. An empty log is an error too.
    """
    for name, view in data.views.items():
        missing = [column for column in REQUIRED_COLUMNS.get(name, ()) if column not in view.versions.column_names]
        if missing:
            raise InvalidInputError(
                f"{source}: the feature service gives {name} without {', '.join(missing)}; name a service that takes "
                "the whole view, or leaves it out"
            )
    if not any((view.row_index >= 0).any() for name, view in data.views.items() if name != schema.INTEREST_TABLE):
        raise InvalidInputError(
            f"{source}: none of its products has a feature row at the time it was shown; "
            "check that the log belongs to this catalogue and that its timestamps are right"
        )
    clicked = data.clicked
    if clicked.min() == clicked.max():
        state = "clicked" if clicked[0] else "not clicked"
        raise InvalidInputError(
            f"{source}: all {len(clicked):,} impressions are {state}; a ranker needs both, "
            "so bring the log with what was shown and not clicked too"
        )
    timestamps = np.unique(data.timestamp_us)
    if len(timestamps) == 1:
        raise InvalidInputError(
            f"{source}: every impression has the timestamp {np.datetime64(int(timestamps[0]), 'us')}; training on the "
            "past and testing on the future needs impressions of different times"
        )
    user = data.user
    clicks = np.bincount(user, weights=clicked)
    usable = int(((clicks > 0) & (clicks < np.bincount(user))).sum())
    if usable < MIN_USERS:
        raise InvalidInputError(
            f"{source}: {usable} of {len(clicks):,} users have both a click and an impression without one; "
            f"the intervals need {MIN_USERS}"
        )


def reject_leaks(leaks: list[Leak]) -> None:
    """Stop if there are leaks; do nothing for an empty list.

    Args:
        leaks: leaks, as `find_leaks` returned them.

    Raises:
        InvalidInputError: there is a leak. The message has all of them, in their order, in one line.
    """
    if leaks:
        raise InvalidInputError("; ".join(f"{leak.feature} leaks: {leak.reason}" for leak in leaks))


def find_leaks(
    data: RankingTrainingSet, features: Mapping[str, Features], column_names: Mapping[str, str] | None = None
) -> list[Leak]:
    """Find all leaks in a joined log and its groups of features.

    Args:
        data: the joined log.
        features: group to its features.
        column_names: feature to the name of the log's column that it was made of, for features that have one; the
            leak then names the column. None names all features by their own names.

    Returns:
        Late rows of views, then histories with the click itself, then single features in the order of `features`.
        Empty if nothing leaks.
    """
    leaks = [*find_future_rows(data), *find_future_clicks(data)]
    for group in features.values():
        leaks += find_implausible_features(group, data.clicked)
    return [replace(leak, feature=(column_names or {}).get(leak.feature, leak.feature)) for leak in leaks]


def find_future_rows(data: RankingTrainingSet) -> list[Leak]:
    """Find views with a joined row from after the impression.

    A row is late if its event timestamp is after the impression (an equal one is not late), or if its column
    `recent_times` lists a click at the impression's time or later.

    Args:
        data: the joined log.

    Returns:
        At most two leaks for each view, one of either kind, in the order of the views. Empty if no row is late.
    """
    leaks = []
    for name, view in data.views.items():
        valid = view.row_index >= 0
        late = int((view.timestamp_us[view.row_index[valid]] > data.timestamp_us[valid]).sum())
        if late:
            leaks.append(Leak(name, f"{late:,} rows have an event timestamp after the impression they were joined to"))
        if "recent_times" in view.versions.column_names:
            newest = _newest_clicks(view)
            late = int((newest[view.row_index[valid]] >= data.timestamp_us[valid]).sum())
            if late:
                leaks.append(
                    Leak(f"{name}.recent_times", f"{late:,} rows list clicks from the impression's time or later")
                )
    return leaks


def find_future_clicks(data: RankingTrainingSet) -> list[Leak]:
    """Find out whether user histories contain the click on the impression itself.

    This finds a history whose timestamps were moved, such as a click of tomorrow dated yesterday: how often the history
    lists the impression's product then predicts the click.

    Args:
        data: the joined log.

    Returns:
        A list of one leak, named `user_interest.recent_products`; empty if there is none, or the column is not joined.
    """
    view = data.views.get(schema.INTEREST_TABLE)
    if view is None or "recent_products" not in view.versions.column_names:
        return []
    features = {"user_interest.recent_products": _count_listed(data, view)}
    return find_implausible_features(features, data.clicked)


def find_implausible_features(features: Features, clicked: NDArray[np.integer]) -> list[Leak]:
    """Find features that alone rank clicks at an AUC of IMPLAUSIBLE_AUC or more, in either direction.

    From two times MAX_ROWS rows on, only every second row is used, from three times on every third, and so on.

    Args:
        features: name to values [n]; integers are categories, floats numbers, with NaN for missing.
        clicked: 0 or 1 [n].

    Returns:
        One leak for each such feature, in the order of `features`.
    """
    step = max(1, len(clicked) // MAX_ROWS)
    leaks = []
    for name, values in features.items():
        value = compute_single_auc(values[::step], clicked[::step])
        if max(value, 1 - value) >= IMPLAUSIBLE_AUC:
            leaks.append(Leak(name, f"alone it ranks clicks at an AUC of {max(value, 1 - value):.3f}"))
    return leaks


def compute_single_auc(values: NDArray[np.generic], clicked: NDArray[np.integer]) -> float:
    """Return the AUC of one feature alone: above 0.5 if larger values are clicked more often.

    A category ranks by the smoothed click rate that its value has on rows 0, 2, 4, ..., and is scored on rows 1, 3, 5,
    ...; a value that only these have gets the mean rate. Ties count half.

    Args:
        values: floats [n]; a missing one (NaN) ranks below all others. Or integers [n], n >= 1, which are categories;
            the code -1 is a category like any other.
        clicked: 0 or 1 [n].

    Returns:
        From 0 to 1; 0.5 if all scored rows are clicked, or none is.
    """
    if np.issubdtype(values.dtype, np.integer):
        values, clicked = _category_rates(values, clicked)
    scores = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf, neginf=-1e300)
    clicks = int(clicked.sum())
    others = len(clicked) - clicks
    if not clicks or not others:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[clicked == 1].sum() - clicks * (clicks + 1) / 2) / (clicks * others))


def _category_rates(
    values: NDArray[np.generic], clicked: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Click rate of each category on the even rows, for the odd rows, smoothed by ten rows of the mean rate."""
    _, code = np.unique(values, return_inverse=True)
    shown = np.bincount(code[::2], minlength=int(code.max()) + 1)
    clicks = np.bincount(code[::2], weights=clicked[::2], minlength=len(shown))
    mean = clicked[::2].mean()
    return ((clicks + 10 * mean) / (shown + 10))[code[1::2]], clicked[1::2]


def _newest_clicks(view: JoinedView) -> NDArray[np.int64]:
    """The newest click that each version lists, in microseconds [versions]; the smallest int64 where it lists none."""
    newest = pc.list_slice(view.versions.column("recent_times"), 0, 1)
    counts = pc.fill_null(pc.list_value_length(newest), 0).to_numpy()
    result = np.full(len(view.versions), np.iinfo(np.int64).min)
    result[counts > 0] = pc.list_flatten(newest).to_numpy()
    return result


def _count_listed(data: RankingTrainingSet, view: JoinedView) -> NDArray[np.float32]:
    """How often each impression's product is in its user's history [n]; NaN without a joined row."""
    lists = view.versions.column("recent_products").combine_chunks()
    product_ids = pc.unique(data.impressions.column("product_id"))
    shown = pc.index_in(data.impressions.column("product_id"), product_ids).to_numpy().astype(np.int64)
    listed = pc.fill_null(pc.index_in(pc.list_flatten(lists), product_ids), -1).to_numpy().astype(np.int64)
    owner = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    pairs, counts = np.unique(owner * (len(product_ids) + 1) + listed + 1, return_counts=True)
    wanted = view.row_index * (len(product_ids) + 1) + shown + 1
    position = np.minimum(np.searchsorted(pairs, wanted), max(len(pairs) - 1, 0))
    found = np.where(pairs[position] == wanted, counts[position], 0) if len(pairs) else np.zeros(len(wanted))
    return np.where(view.row_index >= 0, found, np.nan).astype(np.float32)
