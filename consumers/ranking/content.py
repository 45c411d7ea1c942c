"""The groups of features that come from a product's own rows: codes, neighbours, missing."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from consumers.ranking.baseline_features import RATE_STRENGTH
from consumers.ranking.click_counts import Clicks, counts_before, smoothed_rate
from consumers.ranking.identity_controls import WINDOW, same_in_window
from consumers.ranking.training_set import JoinedView, TrainingSet, codes
from feature_repo import schema
from feature_repo.features import missing
from feature_repo.features.neighbours import NAMES as NEIGHBOURS
from feature_repo.schema import TAGS

Group = dict[str, NDArray[Any]]


def codes_group(data: TrainingSet, view: JoinedView, clicks: Clicks) -> Group:
    """The semantic ID and its first code as categories, and by each: what it earned before, and from this user.

    Args:
        data: the joined log.
        view: product_codes.
        clicks: the log's.
    """
    semantic = codes(view.strings("semantic_id"))
    first = pc.list_element(view.versions.column("codes").filter(pc.is_valid(view.versions.column("codes"))), 0)
    coarse_of_version = np.full(len(view.versions), -1, np.int64)
    coarse_of_version[view.versions.column("codes").is_valid().to_numpy()] = first.to_numpy()
    coarse = np.append(coarse_of_version, -1)[view.row]
    everyone = np.zeros(len(semantic), np.int64)
    shown, clicked = counts_before(everyone, data.time, data.clicked)
    overall = smoothed_rate(shown, clicked, np.zeros(len(semantic)), 1e-9)
    group: Group = {}
    for name, code in (("semantic_id", semantic), ("coarse_code", coarse)):
        group[name] = code.astype(np.int32)
        shown, clicked = counts_before(code, data.time, data.clicked)
        group[f"{name}_rate"] = _known(smoothed_rate(shown, clicked, overall, RATE_STRENGTH), code)
        pair = data.user * (int(code.max(initial=0)) + 2) + code + 1
        shown, clicked = counts_before(pair, data.time, data.clicked)
        group[f"user_{name}_rate"] = _known(smoothed_rate(shown, clicked, overall, RATE_STRENGTH), code)
        group[f"same_{name}_clicked"] = _known(same_in_window(code, clicks, WINDOW), code)
    return group


def neighbours_group(view: JoinedView) -> Group:
    """What product_neighbours says, as it is."""
    return {name: view.numbers(name) for name in NEIGHBOURS}


def missing_group(data: TrainingSet, embedding: JoinedView, tags: JoinedView | None) -> Group:
    """What is not known of a product: how old its vectors are, where the tagger abstains, what it says instead.

    That a picture or a title is missing the baseline knows already, for the placebo swaps among products of the same.
    """
    known = embedding.row >= 0
    age = data.time - np.append(embedding.since, 0)[embedding.row]
    # Of the modalities only the age: which are missing the baseline knows already.
    group: Group = {"vector_age_days": missing.of_vectors(age, known, {})["vector_age_days"]}
    if tags is None:
        return group
    labelled = {tag: ~_null(tags.strings(tag)) for tag in TAGS if tag in tags.versions.column_names}
    catalogue = data.views.get(schema.CATALOGUE_TABLE)
    told = ~_null(catalogue.strings("category")) if catalogue is not None else None
    return group | missing.of_tags(tags.row >= 0, labelled, told)


def _known(values: NDArray[np.float32], code: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.where(code >= 0, values, np.float32(np.nan))


def _null(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy(), np.bool_)
