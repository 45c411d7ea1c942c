"""Affinity of a candidate to what its user clicked: the one definition for offline, online, Feast and torch.

    interest_cosine       cosine to the user's interest vector (interest.py)
    history_cosine_max    largest cosine to the user's last clicks (at most HISTORY_LENGTH)
    history_cosine_mean   mean cosine to them
    history_cosine_top5   mean of the five largest
    tier_0.0 ... tier_1.0 number of clicks in each tier of cosines, as ln(1 + count): the histogram of SimTier
                          (Alimama, 2024)
    age_match             cosine of the candidate's age stages and the child's present ones
    gender_match          cosine of the candidate's gender and the gender that the user clicks for
    age_gap               expected age stage of the candidate minus the child's present one
    same_product          number of the last clicks that were this product
    same_code             number that had its semantic ID
    same_coarse_code      number that had its first code

Counts cover what is known: a click on a product without a vector is in no tier, one without codes in no same_code. A
feature is NaN if nothing is known about it (no vector, tags, codes or clicks).

The histogram is linear between the middles of two tiers: a cosine between them counts in both, in proportion. So a
rounding error in the sixth digit moves no click to another tier, offline and online agree, and a ranker that is trained
end to end gets a gradient. Cosines below the middle of the first tier count in the first tier.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from feature_repo.features.ages import compute_expected_stage, shift_ages
from feature_repo.features.similarity import compute_history_cosines, compute_norms, normalize_rows
from feature_repo.schema import CHILD_AGE_MONTHS

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HISTORY_SERVICE = "affinity_history"
"""Name of the feature service that reads the vectors and codes of the last clicks."""
TOP = 5
"""Number of clicks in `history_cosine_top5`, at most."""
TIERS = tuple(tier / 10 for tier in range(11))
"""Middles of the tiers of the histogram: evenly spaced cosines."""
SIMILARITY_NAMES = (
    "history_cosine_max",
    "history_cosine_mean",
    "history_cosine_top5",
    *(f"tier_{middle:.1f}" for middle in TIERS),
)
"""The features that depend only on the cosines to the last clicks, in the order of `summarize_similarities`."""
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
"""All features, in the order of `compute_affinity`."""


@dataclass(frozen=True)
class UserState:
    """One user's row of the table `user_interest`, and the vectors and codes of the h last clicked products in it."""

    interest: Floats
    """float32 [d], the interest vector; NaN if the user clicked no product with a vector."""
    ages: Floats
    """float32 [stages], the child's age at the last click as a distribution over the stages; NaN if unknown."""
    genders: Floats
    """float32 [genders], the gender that the user clicks for as a distribution over CHILD_GENDERS; NaN if unknown."""
    last_click_us: int
    """Time of the last click, microseconds since 1970 UTC. It matters only if `ages` is known."""
    products: Sequence[Hashable]
    """The ids of the last clicked products [h], newest first; a product clicked twice is in it twice."""
    vectors: Floats
    """float32 [h, d], the vectors of `products`; NaN rows for products without one."""
    codes: Ints
    """int64 [h, levels], the codes of `products`; -1 for products without any."""


@dataclass(frozen=True)
class Candidates:
    """n candidates, as of the time they are ranked."""

    products: Sequence[Hashable]
    """The ids of the candidates [n]; equal ids are counted alike."""
    vectors: Floats
    """float32 [n, d]; NaN rows for candidates without a vector."""
    ages: Floats
    """float32 [n, stages], age distributions, youngest stage first; NaN rows for candidates without tags."""
    genders: Floats
    """float32 [n, genders], distributions in the order of CHILD_GENDERS; NaN rows for candidates without tags."""
    codes: Ints
    """int64 [n, levels]; -1 for candidates without codes."""


@dataclass(frozen=True)
class AffinityLog:
    """A log of n rows: each row's user, as of the row, and its candidate."""

    user: Ints
    """int64 [n], any code of the user. Rows of one user share most of their history."""
    interest: Floats
    """float32 [n, d], interest vector of the row's user; NaN rows for users without one."""
    ages: Floats
    """float32 [n, stages], distribution of the child's age at the user's last click; NaN rows where unknown."""
    genders: Floats
    """float32 [n, genders], distribution of the genders that the row's user clicks for; NaN rows where unknown."""
    last_click_us: Ints
    """int64 [n], time of the last click before the row, microseconds since 1970 UTC."""
    history: Ints
    """int64 [n, h], for each of the last clicks before the row the index of the product in the `vectors` and `codes` of
    `compute_log_affinity`, as the product was at the time of the row; -1 for none."""
    candidate: Ints
    """int64 [n], the index of the candidate in the same arrays; -1 for none."""
    candidate_ages: Floats
    """float32 [n, stages], the candidates' age distributions; NaN rows for candidates without tags."""
    candidate_genders: Floats
    """float32 [n, genders], the candidates' gender distributions; NaN rows for candidates without tags."""
    same_product: Floats
    """float32 [n], how many of the user's last clicks before the row were on the candidate; NaN if there were none."""


def compute_affinity(
    similarity: Floats,
    interest: Floats,
    ages: tuple[Floats, Floats],
    genders: tuple[Floats, Floats],
    since_click_us: Ints,
    same_product: Floats,
    same_codes: tuple[Floats, Floats],
    age_bounds: Sequence[float] = CHILD_AGE_MONTHS,
) -> dict[str, Floats]:
    """Return the features of n rows from quantities that relate each candidate to its user.

    A feature is NaN in the rows whose input to it is missing; the other features of such a row are computed.

    Args:
        similarity: float32 [n, h], cosines to the last clicks; NaN for a missing click or vector.
        interest: float32 [n], cosine to the interest vector; NaN where one of the vectors is missing.
        ages: distributions of the candidates [n, stages], and of the users at their last click [n or 1, stages]. Each
            row sums to 1, and a NaN row is missing. One row stands for all n.
        genders: distributions of the candidates [n, genders], and of the users [n or 1, genders].
        since_click_us: int64 [n or 1], microseconds since the user's last click; negative values count as 0.
        same_product: float32 [n], number of the last clicks on the candidate (`count_clicks`).
        same_codes: float32 [n] each, number of the last clicks with the candidate's semantic ID, and with its first
            code (`count_same_codes`).
        age_bounds: bounds of the child age stages in months.

    Returns:
        float32 [n] per name, in the order of NAMES. The tiers are ln(1 + count); `age_gap` is in stages, positive if
        the candidate is for older children.
    """
    child = shift_ages(ages[1], since_click_us, age_bounds)
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


def compute_user_affinity(
    user: UserState, candidates: Candidates, now: int, age_bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> dict[str, Floats]:
    """Return the features of one user's candidates. All are NaN if nothing is known of the user.

    Args:
        user: the user; the widths of vectors and codes are those of `candidates`.
        candidates: n candidates; the result is in their order.
        now: the time of the ranking, microseconds since 1970 UTC. If it is before the last click, the child has the age
            of the last click.
        age_bounds: bounds of the child age stages in months.

    Returns:
        float32 [n] per name, in the order of NAMES.
    """
    # One matrix product for clicks and interest, with the clicks in the rows, because sums run over clicks. Dividing by
    # the candidates' norms afterwards writes less memory than normalizing all candidates.
    directions = normalize_rows(np.concatenate([user.vectors, user.interest[None]]))
    cosines = (directions @ candidates.vectors.T) / compute_norms(candidates.vectors)
    return compute_affinity(
        cosines[:-1].T,
        cosines[-1],
        (candidates.ages, user.ages[None]),
        (candidates.genders, user.genders[None]),
        np.array([now - user.last_click_us]),
        count_clicks(candidates.products, user.products),
        count_same_codes(candidates.codes, user.codes[None]),
        age_bounds,
    )


def compute_log_affinity(
    rows: AffinityLog, vectors: Floats, codes: Ints, now: Ints, age_bounds: Sequence[float] = CHILD_AGE_MONTHS
) -> dict[str, Floats]:
    """Return the features of a log, in the order of its rows. A row's features do not depend on later rows.

    Args:
        rows: n rows, at least 1. The rows of each user are in time order.
        vectors: float32 [v, d], vectors of product versions; NaN rows for versions without one.
        codes: int64 [v, levels], codes of the same versions; -1 for versions without any.
        now: int64 [n], time of each row, microseconds since 1970 UTC.
        age_bounds: bounds of the child age stages in months.

    Returns:
        float32 [n] per name, in the order of NAMES.
    """
    pieces = []
    for start in range(0, len(now), 50_000):  # bounds the memory of arrays per row and click
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
        now - rows.last_click_us,
        rows.same_product,
        (np.concatenate([whole for whole, _ in pieces]), np.concatenate([coarse for _, coarse in pieces])),
        age_bounds,
    )


def summarize_similarities(similarity: Floats) -> dict[str, Floats]:
    """Return the features of SIMILARITY_NAMES.

    Args:
        similarity: float32 [n, h], cosines to the last clicks; NaN where a click has no vector.

    Returns:
        float32 [n] per name, in the order of SIMILARITY_NAMES. Cosines that are missing do not count; NaN where all are
        missing. With fewer than TOP cosines, `history_cosine_top5` is the mean of those.
    """
    clicks, missing, count = _transpose(similarity)
    values = (*_summarize(similarity, clicks, missing, count), *_count_tiers(clicks, missing, count))
    return dict(zip(SIMILARITY_NAMES, values, strict=True))


def summarize_top_similarities(similarity: Floats) -> dict[str, Floats]:
    """Return the maximum, the mean, and the mean of the TOP largest of each row's cosines, without the tiers.

    Args:
        similarity: float32 [n, h], cosines to the last clicks; NaN where a click has no vector.

    Returns:
        float32 [n] for each of the first three SIMILARITY_NAMES. Cosines that are missing do not count; NaN where all
        are missing.
    """
    return dict(zip(SIMILARITY_NAMES[:3], _summarize(similarity, *_transpose(similarity)), strict=True))


def _transpose(similarity: Floats) -> tuple[Floats, NDArray[np.bool_] | None, Floats]:
    """Transpose cosines [n, h], because a sum over clicks runs three times as fast over contiguous rows.

    Returns:
        float32 [h, n]; bool [h, n], which are missing, or None if none is; float32 [n], the number of present ones, NaN
        instead of 0.
    """
    clicks = np.ascontiguousarray(similarity.T)
    missing = np.isnan(clicks)
    if missing.any():
        count = (len(clicks) - np.add.reduce(missing, axis=0, dtype=np.int32)).astype(np.float32)
        count[count == 0] = np.nan
        return clicks, missing, count
    return clicks, None, np.full(clicks.shape[1], len(clicks) or np.nan, np.float32)


def _summarize(
    similarity: Floats, clicks: Floats, missing: NDArray[np.bool_] | None, count: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return maximum, mean and mean of the TOP largest cosines of each row, float32 [n] each."""
    mean = (clicks if missing is None else np.where(missing, np.float32(0), clicks)).sum(axis=0) / count
    low = similarity if missing is None else np.where(missing, np.float32(-2), clicks).T
    top = min(TOP, len(clicks))
    largest = np.sort(low, axis=1)[:, len(clicks) - top :].T  # for so few values, as fast as a partition
    top_mean = np.where(largest > -2, largest, np.float32(0)).sum(axis=0) / np.minimum(count, TOP)
    highest = largest[-1] if top else count
    return np.where(count > 0, highest, np.float32(np.nan)), mean, top_mean


def count_clicks(candidates: Sequence[Hashable], clicked: Sequence[Hashable]) -> Floats:
    """Return float32 [n], how often each of n candidates is among one user's clicks.

    The result is in the order of the candidates: 0 for one that was not clicked, NaN for all if there are no clicks.
    """
    if not len(clicked):
        return np.full(len(candidates), np.nan, np.float32)
    counts = Counter(clicked)
    return np.fromiter(map(counts.get, candidates, repeat(0)), np.float32, len(candidates))


def count_same_codes(candidates: Ints, history: Ints) -> tuple[Floats, Floats]:
    """Count the last clicks that have a candidate's semantic ID, and those that have its first code.

    Args:
        candidates: int64 [n, levels]; -1 for candidates without codes.
        history: int64 [n or 1, h, levels]; -1 for clicks without codes.

    Returns:
        float32 [n] twice: the number of clicks with the same codes at all levels, then of those with the same code at
        the first level. NaN where the candidate has no codes, or no click has any; all NaN if there are 0 levels.
    """
    if not candidates.shape[1]:
        missing = np.full(len(candidates), np.nan, np.float32)
        return missing, missing
    same_first = candidates[:, None, 0] == history[:, :, 0]
    unknown = (candidates[:, 0] < 0) | ~(history[:, :, 0] >= 0).any(axis=1)
    # Few clicks share the first code; only those are compared further. `divmod` takes a tenth of the time of `nonzero`.
    rows, clicks = np.divmod(np.flatnonzero(same_first), history.shape[1])
    same = (candidates[rows] == np.broadcast_to(history, (len(candidates), *history.shape[1:]))[rows, clicks]).all(
        axis=1
    )
    coarse = np.bincount(rows, minlength=len(candidates))
    whole = np.bincount(rows[same], minlength=len(candidates))
    return tuple(np.where(unknown, np.nan, counts).astype(np.float32) for counts in (whole, coarse))  # type: ignore[return-value]


def _count_tiers(clicks: Floats, missing: NDArray[np.bool_] | None, count: Floats) -> Floats:
    """Return float32 [tiers, n], ln(1 + number of cosines in each tier), shared between neighbouring tiers.

    `beyond[k]` sums, over the clicks, how far each cosine is beyond the middle of tier k - 1, as a share of the way to
    the next middle in [0, 1]. The number in a tier is the difference of two such sums.
    """
    scaled = clicks * np.float32(len(TIERS) - 1)
    if missing is not None:
        scaled[missing] = -1
    one = np.ones_like(scaled)  # the minimum of two arrays takes a third of the time of array and scalar
    rest = np.maximum(scaled, np.zeros_like(scaled))
    share = np.empty_like(scaled)
    beyond = np.zeros((len(TIERS) + 1, clicks.shape[1]), np.float32)
    beyond[0] = count
    for tier in range(len(TIERS) - 1):
        np.minimum(rest, one, out=share)
        np.add.reduce(share, axis=0, out=beyond[tier + 1])
        np.subtract(rest, share, out=rest)  # exact
    counts = np.maximum(beyond[:-1] - beyond[1:], np.float32(0))
    counts[:, np.isnan(count)] = np.nan
    return np.log(1 + counts)  # a quarter of the time of `log1p`; no count is so small that the difference matters


def _match(left: Floats, right: Floats) -> Floats:
    """Return float32 [n], the cosine of each row of `left` [n, k] and its row of `right` [n or 1, k]; NaN if one is."""
    return (normalize_rows(left) * normalize_rows(right)).sum(axis=1)
