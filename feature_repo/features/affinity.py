"""How close a candidate is to what its user clicked: the one definition, offline, online, in Feast and in torch.

    interest_cosine       to the user's interest vector (interest.py)
    history_cosine_max    to the closest of the user's last clicks (HISTORY_LENGTH of them)
    history_cosine_mean   mean over those
    history_cosine_top5   mean over the five closest
    tier_0.0 ... tier_1.0 how many of those lie that close: ln(1 + count), the histogram of SimTier (Alimama, 2024)
    age_match             cosine of the candidate's age stages to the child's as it is now
    gender_match          cosine of the candidate's gender to what the user clicks for
    age_gap               the candidate's expected age stage less the child's now: children grow between clicks
    same_product          how many of the last clicks were this product
    same_code             how many had its semantic ID
    same_coarse_code      how many had its first code

A count of what is known: clicks on products without a vector are in no tier, those without codes in no same_code. What
nothing is known of (no vector, no tags, no codes, no clicks) is NaN.

The histogram has no edges at which a count jumps: a cosine between the middles of two tiers counts in both, in
proportion. So a rounding in the sixth digit moves no click to another tier, offline and online agree, and a ranker
trained end to end gets a gradient. Cosines below the first tier's middle count in it.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.ages import compute_expected_stage, shift_ages
from feature_repo.features.similarity import compute_history_cosines, compute_norms, normalize_rows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HISTORY_SERVICE = "affinity_history"
"""The feature service by which the vectors and codes of the last clicks are read."""
TOP = 5
TIERS = tuple(tier / 10 for tier in range(11))
"""The middles of the histogram's tiers: cosines, evenly spaced."""
SIMILARITY_NAMES = (
    "history_cosine_max",
    "history_cosine_mean",
    "history_cosine_top5",
    *(f"tier_{middle:.1f}" for middle in TIERS),
)
NAMES = (
    "interest_cosine",
    *SIMILARITY_NAMES,
    "age_match",
    "gender_match",
    "age_gap",
    "same_product",
    "same_code",
    "same_coarse_code",
)
"""Every feature, in the order in which `affinity` gives them."""


@dataclass(frozen=True)
class UserState:
    """What one user's row says, and what is known of the products in it."""

    interest: Floats
    """[d], NaN where the user clicked nothing with a vector."""
    ages: Floats
    """[stages], at the last click."""
    genders: Floats
    """[genders]."""
    last_click: int
    """Microseconds since 1970 UTC."""
    products: Sequence[Hashable]
    """The last clicks [h], newest first."""
    vectors: Floats
    """Of those [h, d], NaN rows where there is none."""
    codes: Ints
    """Of those [h, levels], -1 where there is none."""


@dataclass(frozen=True)
class Candidates:
    """What is known of n candidates, as of the moment they are ranked."""

    products: Sequence[Hashable]
    vectors: Floats
    """[n, d], NaN rows where there is none."""
    ages: Floats
    """[n, stages]."""
    genders: Floats
    """[n, genders]."""
    codes: Ints
    """[n, levels], -1 where there is none."""


@dataclass(frozen=True)
class AffinityLog:
    """A log of n rows: which user version and which candidate each has, and the history as of the row."""

    user: Ints
    """[n], any codes: rows of one user share most of their history."""
    interest: Floats
    """[n, d]: the row's user's."""
    ages: Floats
    """[n, stages]."""
    genders: Floats
    """[n, genders]."""
    last_click: Ints
    """[n], microseconds since 1970 UTC."""
    history: Ints
    """[n, h]: the version of each last clicked product as of the row, a row of `vectors` and `codes`; -1 for none."""
    candidate: Ints
    """[n]: the same of the candidate."""
    candidate_ages: Floats
    candidate_genders: Floats
    same_product: Floats
    """[n], `times_clicked`; NaN where the user has no row."""


def compute_affinity(
    similarity: Floats,
    interest: Floats,
    ages: tuple[Floats, Floats],
    genders: tuple[Floats, Floats],
    passed: Ints,
    same_product: Floats,
    same_codes: tuple[Floats, Floats],
) -> dict[str, Floats]:
    """The features of n rows, from what relates each candidate to its user.

    Args:
        similarity: float32 [n, h], cosines to the last clicks, NaN where there is none.
        interest: float32 [n], cosine to the interest vector.
        ages: of the candidates [n, stages]; of the users' clicks [n or 1, stages].
        genders: likewise [n, genders].
        passed: int64 [n or 1], microseconds since the user's last click.
        same_product: float32 [n].
        same_codes: float32 [n] each, of the whole semantic ID and of its first code.

    Returns:
        float32 [n] for each of NAMES, in their order.
    """
    child = shift_ages(ages[1], passed)
    features = {
        "interest_cosine": interest,
        **summarize_similarities(similarity),
        "age_match": _match(ages[0], child),
        "gender_match": _match(*genders),
        "age_gap": compute_expected_stage(ages[0]) - compute_expected_stage(child),
        "same_product": same_product,
        "same_code": same_codes[0],
        "same_coarse_code": same_codes[1],
    }
    return {name: np.ascontiguousarray(features[name], np.float32) for name in NAMES}


def compute_user_affinity(user: UserState, candidates: Candidates, now: int) -> dict[str, Floats]:
    """The features of one user's candidates [n], at `now` (microseconds since 1970 UTC)."""
    # One product for the clicks and the interest, by click as the sums over clicks want it; the candidates' lengths are
    # divided by afterwards, which is less to write than unit vectors of all.
    asked = normalize_rows(np.concatenate([user.vectors, user.interest[None]]))
    cosines = (asked @ candidates.vectors.T) / compute_norms(candidates.vectors)
    return compute_affinity(
        cosines[:-1].T,
        cosines[-1],
        (candidates.ages, user.ages[None]),
        (candidates.genders, user.genders[None]),
        np.array([now - user.last_click]),
        count_clicks(candidates.products, user.products),
        count_same_codes(candidates.codes, user.codes[None]),
    )


def compute_log_affinity(rows: AffinityLog, vectors: Floats, codes: Ints, now: Ints) -> dict[str, Floats]:
    """The features of a log.

    Args:
        rows: n rows.
        vectors: float32 [v, d] of product versions.
        codes: int64 [v, levels] of the same versions, -1 where there are none.
        now: int64 [n], microseconds since 1970 UTC.
    """
    pieces = []
    for start in range(0, len(now), 50_000):  # what is computed per row and click stays small
        part = slice(start, start + 50_000)
        none = np.full((1, codes.shape[1]), -1)
        pieces.append(
            count_same_codes(
                np.concatenate([codes, none])[rows.candidate[part]], np.concatenate([codes, none])[rows.history[part]]
            )
        )
    directions = np.concatenate([normalize_rows(vectors), np.full((1, vectors.shape[1]), np.nan, np.float32)])
    return compute_affinity(
        compute_history_cosines(vectors, rows.candidate, rows.history, rows.user),
        np.einsum("ij,ij->i", directions[rows.candidate], normalize_rows(rows.interest)),
        (rows.candidate_ages, rows.ages),
        (rows.candidate_genders, rows.genders),
        now - rows.last_click,
        rows.same_product,
        (np.concatenate([whole for whole, _ in pieces]), np.concatenate([coarse for _, coarse in pieces])),
    )


def summarize_similarities(similarity: Floats) -> dict[str, Floats]:
    """SIMILARITY_NAMES of float32 [n, h], NaN where a click has no vector: float32 [n], NaN where none has."""
    clicks, missing, known = _by_click(similarity)
    found = (*_summaries(similarity, clicks, missing, known), *_tiers(clicks, missing, known))
    return dict(zip(SIMILARITY_NAMES, found, strict=True))


def summarize_top_similarities(similarity: Floats) -> dict[str, Floats]:
    """The first of `of_similarities`, without the histogram: the closest, the mean, the five closest."""
    return dict(zip(SIMILARITY_NAMES[:3], _summaries(similarity, *_by_click(similarity)), strict=True))


def _by_click(similarity: Floats) -> tuple[Floats, NDArray[np.bool_] | None, Floats]:
    """Cosines [n, h] by click, so that a sum over clicks runs over whole rows of numbers: a third of the time.

    Returns:
        float32 [h, n]; bool [h, n], which are missing, None if none is; float32 [n], how many are not, NaN for none.
    """
    clicks = np.ascontiguousarray(similarity.T)
    missing = np.isnan(clicks)
    if missing.any():
        known = (len(clicks) - np.add.reduce(missing, axis=0, dtype=np.int32)).astype(np.float32)
        known[known == 0] = np.nan
        return clicks, missing, known
    return clicks, None, np.full(clicks.shape[1], len(clicks) or np.nan, np.float32)


def _summaries(
    similarity: Floats, clicks: Floats, missing: NDArray[np.bool_] | None, known: Floats
) -> tuple[Floats, Floats, Floats]:
    mean = (clicks if missing is None else np.where(missing, np.float32(0), clicks)).sum(axis=0) / known
    low = similarity if missing is None else np.where(missing, np.float32(-2), clicks).T
    top = min(TOP, len(clicks))
    largest = np.sort(low, axis=1)[:, len(clicks) - top :].T  # NumPy sorts so few in the time of a partition
    best = np.where(largest > -2, largest, np.float32(0)).sum(axis=0) / np.minimum(known, TOP)
    highest = largest[-1] if top else known
    return np.where(known > 0, highest, np.float32(np.nan)), mean, best


def count_clicks(candidates: Sequence[Hashable], clicked: Sequence[Hashable]) -> Floats:
    """How often each of the candidates is among one user's clicks: float32 [n]; NaN where there are no clicks."""
    if not len(clicked):
        return np.full(len(candidates), np.nan, np.float32)
    counts = Counter(clicked)
    return np.fromiter(map(counts.get, candidates, repeat(0)), np.float32, len(candidates))


def count_same_codes(candidates: Ints, history: Ints) -> tuple[Floats, Floats]:
    """How many of the last clicks have a candidate's semantic ID, and how many its first code.

    Args:
        candidates: int64 [n, levels], -1 where there are none.
        history: int64 [n or 1, h, levels].

    Returns:
        float32 [n] twice; NaN where the candidate has no codes, or none of the clicks has.
    """
    if not candidates.shape[1]:
        nothing = np.full(len(candidates), np.nan, np.float32)
        return nothing, nothing
    alike = candidates[:, None, 0] == history[:, :, 0]
    unknown = (candidates[:, 0] < 0) | ~(history[:, :, 0] >= 0).any(axis=1)
    # Few share the first code: only those are looked at further.
    rows, clicks = np.divmod(np.flatnonzero(alike), history.shape[1])  # a tenth of the time of a `nonzero` of two axes
    same = (candidates[rows] == np.broadcast_to(history, (len(candidates), *history.shape[1:]))[rows, clicks]).all(
        axis=1
    )
    coarse = np.bincount(rows, minlength=len(candidates))
    whole = np.bincount(rows[same], minlength=len(candidates))
    return tuple(np.where(unknown, np.nan, found).astype(np.float32) for found in (whole, coarse))  # type: ignore[return-value]


def _tiers(clicks: Floats, missing: NDArray[np.bool_] | None, known: Floats) -> Floats:
    """ln(1 + how many cosines of each row lie in each tier), shared between neighbours: float32 [tiers, n].

    `past[k]` is how much of each cosine lies past the middle of tier k - 1 on its way to the next: what is past one
    middle and not past the next is in between.
    """
    place = clicks * np.float32(len(TIERS) - 1)
    if missing is not None:
        place[missing] = -1
    one = np.ones_like(place)  # NumPy takes the smaller of two arrays in a third of the time of array and number
    rest = np.maximum(place, np.zeros_like(place))  # what of each cosine the tiers so far have not taken: exact
    taken = np.empty_like(place)
    past = np.zeros((len(TIERS) + 1, clicks.shape[1]), np.float32)
    past[0] = known
    for tier in range(len(TIERS) - 1):
        np.minimum(rest, one, out=taken)
        np.add.reduce(taken, axis=0, out=past[tier + 1])
        np.subtract(rest, taken, out=rest)
    counts = np.maximum(past[:-1] - past[1:], np.float32(0))
    counts[:, np.isnan(known)] = np.nan
    return np.log(1 + counts)  # in a quarter of the time of `log1p`; a count is not so small that it would matter


def _match(left: Floats, right: Floats) -> Floats:
    """Cosine of each row of `left` [n, k] to its row of `right` [n or 1, k]: float32 [n], NaN where one is missing."""
    return (normalize_rows(left) * normalize_rows(right)).sum(axis=1)
