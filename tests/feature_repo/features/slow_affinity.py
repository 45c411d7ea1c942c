"""The affinity features computed slowly: one candidate and one click at a time, in double precision."""

import math

import numpy as np

from feature_repo.features.affinity import NAMES
from tests.feature_repo.features.world import DAY, Shop, interest_of


def child_of(shop: Shop, user: str, now: int) -> list[float]:
    """Return the distribution over age stages of the user's child at `now`."""
    # Each click shifted the row's mix and made it uniform within the stages again, so the row's own mix is used.
    state = interest_of(shop, user)
    return grown(state.means.ages[0], (now - state.times[0]) / (DAY * 365.25 / 12), shop.age_bounds) if state else []


def affinity(shop: Shop, user: str, child: list[float], candidate: int) -> dict[str, float]:
    if not shop.clicks[user]:
        return dict.fromkeys(NAMES, math.nan)
    last = [product for product, _ in reversed(shop.clicks[user])][:50]
    cosines = [cosine(shop.vectors[candidate], shop.vectors[product]) for product in last]
    known = sorted((one for one in cosines if not math.isnan(one)), reverse=True)
    values = {
        "interest_cosine": cosine(shop.vectors[candidate], mean(shop, user, shop.vectors)),
        "history_cosine_max": known[0] if known else math.nan,
        "history_cosine_mean": sum(known) / len(known) if known else math.nan,
        "history_cosine_top5": sum(known[:5]) / len(known[:5]) if known else math.nan,
    }
    for tier in range(11):
        count = sum(share_of_tier(one, tier) for one in known)
        values[f"tier_{tier / 10:.1f}"] = math.log1p(count) if known else math.nan
    values["age_match"] = cosine(shop.ages[candidate], child)
    values["gender_match"] = cosine(shop.genders[candidate], mean(shop, user, shop.genders))
    values["age_gap"] = sum(i * (a - b) for i, (a, b) in enumerate(zip(shop.ages[candidate], child, strict=True)))
    values["same_product"] = last.count(candidate)
    codes = [shop.codes[product] for product in last if shop.codes[product][0] >= 0]
    mine = shop.codes[candidate]
    unknown = mine[0] < 0 or not codes
    values["same_code"] = math.nan if unknown else sum((one == mine).all() for one in codes)
    values["same_coarse_code"] = math.nan if unknown else sum(one[0] == mine[0] for one in codes)
    return values


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    return float(left @ right / math.sqrt((left @ left) * (right @ right)))


def mean(shop: Shop, user: str, values: np.ndarray) -> np.ndarray:
    """Return the mean of everything the user clicked, with weights that halve every 14 days."""
    clicked = [(values[product].astype(np.float64), time) for product, time in shop.clicks[user]]
    clicked = [(value, time) for value, time in clicked if not np.isnan(value[0])]
    if not clicked:
        return np.full(values.shape[1], np.nan)
    newest = clicked[-1][1]
    weights = [0.5 ** ((newest - time) / (14 * DAY)) for _, time in clicked]
    return sum(w * value for w, (value, _) in zip(weights, clicked, strict=True)) / sum(weights)


def share_of_tier(similarity: float, tier: int) -> float:
    return max(0.0, 1 - abs(min(max(similarity, 0.0), 1.0) * 10 - tier))


def grown(mix: np.ndarray, months: float, bounds: tuple[float, ...]) -> list[float]:
    """Every stage cut into 2,000 slices, each moved: the stage that most of the slice is in gets it."""
    if np.isnan(mix[0]):
        return [math.nan] * len(mix)
    after = [0.0] * len(mix)
    for share, low, high in zip(mix, bounds, bounds[1:], strict=False):
        for place in np.linspace(low, high, 4001)[1::2].tolist():
            stage = sum(place + months >= bound for bound in bounds[1:-1])
            after[stage] += float(share) / 2000
    return after
