"""Generates impressions: page views that a recommender fills with products.

A page view belongs to one user and shows 6 to 14 products within 90 seconds. For each slot a few candidates are drawn,
either by popularity and recency or among new products, and the recommender picks one that matches the child and the
user's taste. A product is shown only after its listing time, and once on a page.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from producers.datasets.shop import parameters
from producers.datasets.shop.assortment import DAY, START, Assortment, Floats, Ints
from producers.datasets.shop.people import People, age_in_stages, age_months
from producers.datasets.shop.random_streams import make_generator

HOUR = DAY // 24
HOUR_WEIGHTS = (2, 1, 1, 1, 1, 2, 4, 6, 7, 8, 9, 9, 10, 9, 8, 8, 8, 8, 9, 12, 16, 17, 13, 6)
OVERSAMPLING = 1.12
"""Slots drawn per slot needed, because some draws are repeated or not yet listed products."""


@dataclass(frozen=True)
class GeneratedImpressions:
    """n impressions, sorted by time. Each field has shape [n], one element for each impression."""

    user: Ints
    """Number of the user, from 0: an index into the fields of People."""
    product: Ints
    """Number of the product, from 0: an index into the fields of Products."""
    timestamp_us: Ints
    """Microseconds since 1970 UTC."""
    page: Ints
    """Number of the page view, from 0, in the order of their start; all its impressions are of one user."""
    position: Ints
    """Position on the page, from 1."""


def generate_impressions(
    assortment: Assortment, people: People, *, days: int, impressions: int, seed: int
) -> GeneratedImpressions:
    """Return about `impressions` impressions within [START, START + days).

    A page shows a product once and only after its listing time, so it may show fewer products than parameters.PAGE
    says, or none. A user may see a product again on another page. A user or a product may have no impression.

    Args:
        assortment: the products.
        people: the users.
        days: the length of the log in days, at least 1.
        impressions: their approximate number; at least one page view is drawn.
        seed: the shop's seed; the same arguments give the same impressions.
    """
    rng = make_generator(seed, "impressions")
    user, begin = _make_page_views(people, days, impressions, rng)
    size = rng.integers(parameters.PAGE[0], parameters.PAGE[1] + 1, size=len(user))
    page = np.repeat(np.arange(len(user)), np.ceil(size * OVERSAMPLING).astype(np.int64))
    product = _fill_slots(assortment, people, user[page], begin[page], days, rng)
    allowed = assortment.products.listed_at[product] <= begin[page]
    allowed &= _is_first_of_key(page * len(assortment.products.design) + product, allowed)
    page, product = page[allowed], product[allowed]
    # Popular products tend to be placed higher.
    order = np.lexsort((-assortment.products.popularity[product] + 1.5 * rng.gumbel(size=len(page)), page))
    page, product = page[order], product[order]
    rank = np.arange(len(page)) - np.searchsorted(page, page)
    kept = rank < size[page]
    page, product, rank = page[kept], product[kept], rank[kept]
    timestamp_us = begin[page] + _time_on_page(page, rank, rng)
    in_time = np.lexsort((rank, page, timestamp_us))
    return GeneratedImpressions(
        user=user[page][in_time],
        product=product[in_time],
        timestamp_us=timestamp_us[in_time],
        page=page[in_time],
        position=rank[in_time] + 1,
    )


def _make_page_views(people: People, days: int, impressions: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return users and start times of page views, sorted by start time."""
    views = max(1, round(impressions * 2 / sum(parameters.PAGE)))
    user = rng.choice(len(people.activity), size=views, p=people.activity)
    weekday = (np.arange(days) + 4) % 7  # START is a Thursday
    weight = np.where((weekday == 5) | (weekday == 6), 1.2, 1.0)
    day = rng.choice(days, size=views, p=weight / weight.sum())
    hours = np.array(HOUR_WEIGHTS) / sum(HOUR_WEIGHTS)
    begin = START + day * DAY + rng.choice(24, size=views, p=hours) * HOUR
    begin += (rng.random(views) * (HOUR - parameters.PAGE_SECONDS * 1e6)).astype(np.int64)
    order = np.argsort(begin, kind="stable")
    return user[order], begin[order]


def _fill_slots(
    assortment: Assortment, people: People, user: Ints, timestamp_us: Ints, days: int, rng: np.random.Generator
) -> Ints:
    """Return a product for each slot; slots are sorted by time."""
    product = np.zeros(len(user), np.int64)
    edges = np.searchsorted(timestamp_us, START + np.arange(days + 1) * DAY)
    for day, (a, b) in enumerate(pairwise(edges)):
        candidates = _draw_candidates(assortment, START + day * DAY, int(b - a), rng)
        scores = _score_candidates(assortment, people, user[a:b], timestamp_us[a:b], candidates)
        best = np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)
        product[a:b] = candidates[np.arange(b - a), best]
    return product


def _draw_candidates(assortment: Assortment, morning: int, slots: int, rng: np.random.Generator) -> Ints:
    """Return [slots, CANDIDATES] products that are listed before the end of the day that starts at `morning`."""
    goods = assortment.products
    n = int(np.searchsorted(goods.listed_at, morning + DAY))
    age = np.maximum(morning + DAY / 2 - goods.listed_at[:n], 0) / DAY
    popular = np.exp(goods.popularity[:n] - np.minimum(age, 60) / parameters.RECENCY_DAYS / 2)
    new = np.exp(0.4 * goods.popularity[:n] - age / parameters.NEW_LANE_DAYS)
    lane = rng.random((slots, 1)) < parameters.NEW_LANE
    draw = rng.random((slots, parameters.CANDIDATES))
    drawn = np.where(lane, _draw_weighted(new, draw), _draw_weighted(popular, draw))
    return np.minimum(drawn, n - 1)


def _draw_weighted(weights: Floats, draw: Floats) -> Ints:
    """Return for each of `draw` (uniform in [0, 1)) an index into the weights, with probability by weight."""
    bounds = np.cumsum(weights)
    return np.searchsorted(bounds, draw * bounds[-1], side="right")


def _score_candidates(
    assortment: Assortment, people: People, user: Ints, timestamp_us: Ints, candidates: Ints
) -> Floats:
    """Return the recommender's scores [slots, CANDIDATES]; it ignores the age of unknown children."""
    design = assortment.products.design[candidates]
    stage = age_in_stages(age_months(people.birthday[user], timestamp_us))
    gap = np.abs(stage[:, None] - assortment.designs.age[design] - 0.5)
    style = assortment.designs.style()
    taste = np.stack([(people.taste[user] * style[design[:, i]]).sum(axis=1) for i in range(design.shape[1])], axis=1)
    interest = people.interest[user[:, None], assortment.designs.category[design]] / parameters.INTEREST_SPREAD
    return (
        -parameters.PICKS_BY_AGE * np.where(people.is_known[user][:, None], gap, 0)
        + parameters.PICKS_BY_INTEREST * interest
        + parameters.PICKS_BY_TASTE * taste
    )


def _is_first_of_key(key: Ints, allowed: np.ndarray) -> np.ndarray:
    """Return bool [n]: whether a row is allowed and no earlier allowed row has the same key."""
    first = np.zeros(len(key), bool)
    rows = np.flatnonzero(allowed)
    first[rows[np.unique(key[rows], return_index=True)[1]]] = True
    return first


def _time_on_page(page: Ints, rank: Ints, rng: np.random.Generator) -> Ints:
    """Return microseconds since the start of the page; products that appear together have the same."""
    gap = rng.exponential(parameters.PAGE_SECONDS / 2 / parameters.PAGE[1], size=len(page))
    gap[(rng.random(len(page)) < 0.35) | (rank == 0)] = 0
    total = np.cumsum(gap)
    start = np.searchsorted(page, page)
    return (np.minimum(total - total[start], parameters.PAGE_SECONDS) * 1e6).astype(np.int64)
