"""Logs of which nothing can be said: each refused in one line, before anything is trained."""

from collections.abc import Mapping

import numpy as np

from consumers.ranking.training_set import TrainingSet
from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.features.neighbours import NAMES as NEIGHBOURS

FEWEST_USERS = 20
"""With both a click and a row without one: intervals draw users, and of fewer they mean nothing."""


NEEDED: Mapping[str, tuple[str, ...]] = {
    schema.CATALOGUE_TABLE: ("category", "brand", "price"),
    schema.EMBEDDING_TABLE: ("fused_vector", "has_image", "has_text"),
    schema.TAGS_TABLE: ("category", "category_probability", "child_age_distribution", "child_gender_distribution"),
    schema.CODES_TABLE: ("codes", "semantic_id"),
    schema.NEIGHBOURS_TABLE: NEIGHBOURS,
}
"""What is made features of, by view: a service may leave a view out, and not a part of one."""


def refuse_unusable(data: TrainingSet, source: str) -> None:
    """Refuse a joined log of which no ranker could be trained or no interval drawn.

    Args:
        data: the joined log.
        source: what to call it.

    Raises:
        VitrineError: a view lacks features; no impression's product is known to any view; one class only; all at one
            moment; too few users.
    """
    for name, view in data.views.items():
        lacking = [column for column in NEEDED.get(name, ()) if column not in view.versions.column_names]
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
    if judged < FEWEST_USERS:
        raise VitrineError(
            f"{source}: {judged} of {len(clicks):,} users have both a click and an impression without one; "
            f"an interval draws users and needs {FEWEST_USERS} of them"
        )
