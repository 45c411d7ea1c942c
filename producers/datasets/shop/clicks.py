"""How likely each impression was to be clicked, and whether it was.

The log-odds are a sum: the user, the product's quality, the child's age and gender against the product's, taste times
style, interest in the category, price, position, hour, the mood of the page view. Age and gender of the product are
hinted at in title and picture; style is seen in the picture (and its function said in the title); quality shows
nowhere but in past clicks.
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
    """The true probability of each click; its mean over the log is CLICK_RATE."""
    odds = compute_log_odds(assortment, people, log, seed=seed)
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _logistic(odds + middle).mean() > parameters.CLICK_RATE else (middle, high)
    return _logistic(odds + low)


def draw_clicks(probability: Floats, *, seed: int) -> np.ndarray:
    """0 or 1 per impression, int8."""
    return (make_generator(seed, "clicks").random(len(probability)) < probability).astype(np.int8)


def compute_log_odds(assortment: Assortment, people: People, log: GeneratedImpressions, *, seed: int) -> Floats:
    """Per impression, without the intercept."""
    designs, goods = assortment.designs, assortment.products
    design, user = goods.design[log.product], log.user
    category = designs.category[design]
    usual = np.log([c.price for c in vocabulary.CATEGORIES])
    hour = log.moment // HOUR % 24
    mood = parameters.SESSION_SPREAD * make_generator(seed, "moods").normal(size=int(log.page.max(initial=0)) + 1)
    return (
        people.bias[user]
        + goods.quality[log.product]
        + _child(assortment, people, log)
        + parameters.TASTE_SPREAD * _liking(people.taste, designs.style(), user, design)
        + people.interest[user, category]
        + people.price[user] * (np.log(goods.price[log.product]) - usual[category])
        + parameters.POSITION * np.log(log.position)
        + parameters.HOUR_EVENING * ((hour >= 19) & (hour < 23))
        + mood[log.page]
    )


def _child(assortment: Assortment, people: People, log: GeneratedImpressions) -> Floats:
    """The child's age at that moment and its gender against the product's."""
    design = assortment.products.design[log.product]
    stage = age_in_stages(age_months(people.birthday[log.user], log.moment))
    gap = np.maximum(np.abs(stage - assortment.designs.age[design] - 0.5) - 0.5, 0)
    other = 1 - people.gender[log.user]  # unisex is 2 and suits everybody
    return parameters.AGE_GAP * np.minimum(gap, parameters.AGE_GAP_LIMIT) + parameters.WRONG_GENDER * (
        assortment.designs.gender[design] == other
    )


def _liking(taste: Floats, style: Floats, user: np.ndarray, design: np.ndarray) -> Floats:
    """taste[user] . style[design], a block of rows at a time."""
    liking = np.empty(len(user))
    for a in range(0, len(user), 100_000):
        rows = slice(a, a + 100_000)
        liking[rows] = np.einsum("ij,ij->i", taste[user[rows]], style[design[rows]])
    return liking


def _logistic(odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-odds))
