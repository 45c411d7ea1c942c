"""Features that know what they cannot: found before a ranker is trained, and named.

Two signs. A row that a join gave to an impression says itself that it is later: its event timestamp, or the newest
click in a user's history. And a single feature that ranks clicks better than the best rankers do: real ones that alone
reach an AUC of IMPLAUSIBLE are not known, but a click that was counted before it happened reaches it at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import rankdata

from consumers.ranking.lightgbm_ranker import Features
from consumers.ranking.training_set import JoinedView, TrainingSet
from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.features.neighbours import NAMES as NEIGHBOURS

IMPLAUSIBLE = 0.85
"""AUC of one feature by itself, either way round."""
ROWS = 200_000
"""At most so many rows are looked at for a feature's AUC."""


@dataclass(frozen=True)
class Leak:
    """One feature that knows what it cannot."""

    feature: str
    why: str


def reject_leaks(found: list[Leak]) -> None:
    """Raise a VitrineError that names every leaking feature."""
    if found:
        raise VitrineError("; ".join(f"{leak.feature} leaks: {leak.why}" for leak in found))


def find_future_rows(data: TrainingSet) -> list[Leak]:
    """Views whose joined row is from after the impression, by its event timestamp or by the clicks that it lists."""
    found = []
    for name, view in data.views.items():
        known = view.row >= 0
        late = int((view.since[view.row[known]] > data.time[known]).sum())
        if late:
            found.append(Leak(name, f"{late:,} rows have an event timestamp after the impression they were joined to"))
        if "recent_times" in view.versions.column_names:
            newest = _newest(view)
            late = int((newest[view.row[known]] >= data.time[known]).sum())
            if late:
                found.append(
                    Leak(f"{name}.recent_times", f"{late:,} rows list clicks from the impression's time or later")
                )
    return found


def find_future_clicks(data: TrainingSet) -> list[Leak]:
    """User rows that list the very impression's product more often than the log had it clicked by then.

    It catches a history whose timestamps were moved: tomorrow's click, said to be yesterday's.
    """
    view = data.views.get(schema.INTEREST_TABLE)
    if view is None or "recent_products" not in view.versions.column_names:
        return []
    features = {"user_interest.recent_products": _times_listed(data, view)}
    return find_implausible_features(features, data.clicked)


def find_implausible_features(features: Features, clicked: NDArray[np.integer]) -> list[Leak]:
    """Features that by themselves rank clicks at an AUC of IMPLAUSIBLE or more, in either order.

    A category is ranked by the click rate of its values on every second row, judged on the others.

    Args:
        features: name to values [n].
        clicked: 0/1 [n].
    """
    step = max(1, len(clicked) // ROWS)
    found = []
    for name, values in features.items():
        value = compute_single_auc(values[::step], clicked[::step])
        if max(value, 1 - value) >= IMPLAUSIBLE:
            found.append(Leak(name, f"alone it ranks clicks at an AUC of {max(value, 1 - value):.3f}"))
    return found


def compute_single_auc(values: NDArray[np.generic], clicked: NDArray[np.integer]) -> float:
    """AUC of one feature by itself, missing below all; 0.5 where it is undefined."""
    if np.issubdtype(values.dtype, np.integer):
        values, clicked = _rates(values, clicked)
    scores = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf, neginf=-1e300)
    clicks = int(clicked.sum())
    others = len(clicked) - clicks
    if not clicks or not others:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[clicked == 1].sum() - clicks * (clicks + 1) / 2) / (clicks * others))


def _rates(
    values: NDArray[np.generic], clicked: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """The click rate that each category has on even rows, at the odd ones, drawn to the mean by ten rows."""
    _, code = np.unique(values, return_inverse=True)
    shown = np.bincount(code[::2], minlength=int(code.max()) + 1)
    clicks = np.bincount(code[::2], weights=clicked[::2], minlength=len(shown))
    mean = clicked[::2].mean()
    return ((clicks + 10 * mean) / (shown + 10))[code[1::2]], clicked[1::2]


def _newest(view: JoinedView) -> NDArray[np.int64]:
    """The newest click that each version lists, in microseconds [versions]; the smallest int64 where it lists none."""
    newest = pc.list_slice(view.versions.column("recent_times"), 0, 1)
    counts = pc.fill_null(pc.list_value_length(newest), 0).to_numpy()
    result = np.full(len(view.versions), np.iinfo(np.int64).min)
    result[counts > 0] = pc.list_flatten(newest).to_numpy()
    return result


def _times_listed(data: TrainingSet, view: JoinedView) -> NDArray[np.float32]:
    """How often each impression's own product is among the clicks that its user's row lists [n], NaN without a row."""
    lists = view.versions.column("recent_products").combine_chunks()
    every = pc.unique(data.impressions.column("product_id"))
    shown = pc.index_in(data.impressions.column("product_id"), every).to_numpy().astype(np.int64)
    listed = pc.fill_null(pc.index_in(pc.list_flatten(lists), every), -1).to_numpy().astype(np.int64)
    owner = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    pairs, counts = np.unique(owner * (len(every) + 1) + listed + 1, return_counts=True)
    wanted = view.row * (len(every) + 1) + shown + 1
    place = np.minimum(np.searchsorted(pairs, wanted), max(len(pairs) - 1, 0))
    found = np.where(pairs[place] == wanted, counts[place], 0) if len(pairs) else np.zeros(len(wanted))
    return np.where(view.row >= 0, found, np.nan).astype(np.float32)


def find_leaks(
    data: TrainingSet, features: Mapping[str, Features], called: Mapping[str, str] | None = None
) -> list[Leak]:
    """All that is found in a joined log and its groups of features, each called as the user calls it.

    Args:
        data: the joined log.
        features: group to its features.
        called: feature to the column of the log that it was made of, where it is one.
    """
    found = [*find_future_rows(data), *find_future_clicks(data)]
    for group in features.values():
        found += find_implausible_features(group, data.clicked)
    return [replace(leak, feature=(called or {}).get(leak.feature, leak.feature)) for leak in found]


MIN_USERS = 20
"""With both a click and a row without one: intervals draw users, and of fewer they mean nothing."""


REQUIRED_COLUMNS: Mapping[str, tuple[str, ...]] = {
    schema.CATALOGUE_TABLE: ("category", "brand", "price"),
    schema.EMBEDDING_TABLE: ("fused_vector", "has_image", "has_text"),
    schema.TAGS_TABLE: ("category", "category_probability", "child_age_distribution", "child_gender_distribution"),
    schema.CODES_TABLE: ("codes", "semantic_id"),
    schema.NEIGHBOURS_TABLE: NEIGHBOURS,
}
"""What is made features of, by view: a service may leave a view out, and not a part of one."""


def check_log(data: TrainingSet, source: str) -> None:
    """Refuse a joined log of which no ranker could be trained or no interval drawn.

    Args:
        data: the joined log.
        source: what to call it.

    Raises:
        VitrineError: a view lacks features; no impression's product is known to any view; one class only; all at one
            moment; too few users.
    """
    for name, view in data.views.items():
        lacking = [column for column in REQUIRED_COLUMNS.get(name, ()) if column not in view.versions.column_names]
        if lacking:
            raise VitrineError(
                f"{source}: the feature service gives {name} without {', '.join(lacking)}; name a service that takes "
                "the whole view, or leaves it out"
            )
    if not any((view.row >= 0).any() for name, view in data.views.items() if name != schema.INTEREST_TABLE):
        raise VitrineError(
            f"{source}: none of its products has a feature row at the time it was shown; "
            "is it the log of this catalogue, and are its timestamps right?"
        )
    clicked = data.clicked
    if clicked.min() == clicked.max():
        said = "clicked" if clicked[0] else "not clicked"
        raise VitrineError(
            f"{source}: all {len(clicked):,} impressions are {said}; a ranker learns from both, "
            "so bring the log with what was shown and not clicked too"
        )
    moments = np.unique(data.time)
    if len(moments) == 1:
        raise VitrineError(
            f"{source}: every impression has the timestamp {np.datetime64(int(moments[0]), 'us')}; "
            "without an order in time nothing can be trained on the past and tested on the future"
        )
    user = data.user
    clicks = np.bincount(user, weights=clicked)
    judged = int(((clicks > 0) & (clicks < np.bincount(user))).sum())
    if judged < MIN_USERS:
        raise VitrineError(
            f"{source}: {judged} of {len(clicks):,} users have both a click and an impression without one; "
            f"an interval draws users and needs {MIN_USERS} of them"
        )
