"""The click probability of each impression, and whether it was clicked.

The log-odds of a click are a sum of effects: user, product quality, the child's age and gender against the product's,
taste times style, interest in the category, price, position, hour, page view. Titles and images indicate a product's
age and gender. Images show its style, and titles state the function. Quality is visible in past clicks only.
"""

import numpy as np

from producers.datasets.shop import parameters, vocabulary
from producers.datasets.shop.assortment import Assortment, Floats
from producers.datasets.shop.impressions import HOUR, GeneratedImpressions
from producers.datasets.shop.people import People, age_in_stages, age_months
from producers.datasets.shop.random_streams import make_generator


def compute_click_probability(
    assortment: Assortment, people: People, log: GeneratedImpressions, *, seed: int
) -> Floats:
    """Return the true click probability of each impression, float64 [n], in the order of the log.

    The mean over the log is CLICK_RATE: the intercept, which is added to all log-odds, is chosen so.

    Args:
        assortment: the products.
        people: the users.
        log: n impressions, at least one.
        seed: the shop's seed, which draws the effect of each page view.
    """
    odds = compute_log_odds(assortment, people, log, seed=seed)
    low, high = -30.0, 30.0  # bisection for the intercept
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _compute_logistic(odds + middle).mean() > parameters.CLICK_RATE else (middle, high)
    return _compute_logistic(odds + low)


def draw_clicks(probability: Floats, *, seed: int) -> np.ndarray:
    """Draw 1 (clicked) or 0 for each impression, independently: int8 [n].

    Args:
        probability: [n], the probability of 1, from 0 to 1.
        seed: the shop's seed; the same arguments give the same clicks.
    """
    return (make_generator(seed, "clicks").random(len(probability)) < probability).astype(np.int8)


def compute_log_odds(assortment: Assortment, people: People, log: GeneratedImpressions, *, seed: int) -> Floats:
    """Return the log-odds of a click of each impression, without the intercept: float64 [n], in the order of the log.

    They are natural logarithms. Without impressions the result is empty.

    Args:
        assortment: the products.
        people: the users.
        log: the impressions.
        seed: the shop's seed, which draws the effect of each page view.
    """
    designs, goods = assortment.designs, assortment.products
    design, user = goods.design[log.product], log.user
    category = designs.category[design]
    usual = np.log([c.price for c in vocabulary.CATEGORIES])
    hour = log.timestamp_us // HOUR % 24
    page_effect = parameters.SESSION_SPREAD * make_generator(seed, "moods").normal(
        size=int(log.page.max(initial=0)) + 1
    )
    return (
        people.bias[user]
        + goods.quality[log.product]
        + _child_effect(assortment, people, log)
        + parameters.TASTE_SPREAD * _taste_effect(people.taste, designs.style(), user, design)
        + people.interest[user, category]
        + people.price[user] * (np.log(goods.price[log.product]) - usual[category])
        + parameters.POSITION * np.log(log.position)
        + parameters.HOUR_EVENING * ((hour >= 19) & (hour < 23))
        + page_effect[log.page]
    )


def _child_effect(assortment: Assortment, people: People, log: GeneratedImpressions) -> Floats:
    """Return the effect of the child's age at the time and of its gender against the product's."""
    design = assortment.products.design[log.product]
    stage = age_in_stages(age_months(people.birthday[log.user], log.timestamp_us))
    gap = np.maximum(np.abs(stage - assortment.designs.age[design] - 0.5) - 0.5, 0)
    other = 1 - people.gender[log.user]  # unisex is 2, so it never differs
    return parameters.AGE_GAP * np.minimum(gap, parameters.AGE_GAP_LIMIT) + parameters.WRONG_GENDER * (
        assortment.designs.gender[design] == other
    )


def _taste_effect(taste: Floats, style: Floats, user: np.ndarray, design: np.ndarray) -> Floats:
    """Return the dot product of taste[user] and style[design] of each row."""
    effect = np.empty(len(user))
    for a in range(0, len(user), 100_000):
        rows = slice(a, a + 100_000)
        effect[rows] = np.einsum("ij,ij->i", taste[user[rows]], style[design[rows]])
    return effect


def _compute_logistic(odds: Floats) -> Floats:
    """Return the probability of each of the log-odds."""
    return 1 / (1 + np.exp(-odds))
