"""Users, their children and their tastes."""

from dataclasses import dataclass

import numpy as np

from feature_repo.schema import CHILD_AGE_MONTHS
from producers.datasets.shop import parameters, vocabulary
from producers.datasets.shop.assortment import DAY, START, Bools, Floats, Ints, persona_weights
from producers.datasets.shop.random_streams import make_generator

DAYS_PER_MONTH = 30.4375
START_DAY = START // DAY
"""START in days since 1970."""


@dataclass(frozen=True)
class People:
    """n users, one array entry each; each has one child."""

    birthday: Ints  # of the child, days since 1970; never after START
    gender: Ints  # of the child: 0 boy, 1 girl
    known: Bools  # whether the shop knows birthday and gender
    taste: Floats  # [n, STYLE_WIDTH]: taste . style is the true liking, of mean 0 and spread 1 over all designs
    interest: Floats  # [n, categories]: liking for a category, effect on the log-odds
    bias: Floats  # how readily the user clicks, effect on the log-odds
    price: Floats  # effect of log price over the category's usual one
    activity: Floats  # share of all page views, sums to 1


def make_people(users: int, style: Floats, seed: int) -> People:
    """The users of the shop of `seed`; `style` [designs, STYLE_WIDTH] sets the scale of tastes."""
    rng = make_generator(seed, "people")
    stage = rng.choice(len(parameters.CHILD_STAGES), size=users, p=parameters.CHILD_STAGES)
    bounds = np.array(CHILD_AGE_MONTHS)
    months = rng.uniform(bounds[stage], bounds[stage + 1])
    activity = rng.gamma(3.0, size=users)
    return People(
        birthday=START_DAY - np.ceil(months * DAYS_PER_MONTH).astype(np.int64),
        gender=rng.integers(0, 2, size=users),
        known=rng.random(users) < parameters.KNOWN_CHILD,
        taste=_tastes(users, style, rng),
        interest=parameters.INTEREST_SPREAD * rng.normal(size=(users, len(vocabulary.CATEGORIES))),
        bias=parameters.USER_SPREAD * rng.normal(size=users),
        price=parameters.PRICE + parameters.PRICE_SPREAD * rng.normal(size=users),
        activity=activity / activity.sum(),
    )


def age_months(birthday: Ints, moment: Ints) -> Floats:
    """Age in months of children born on `birthday` (days since 1970) at `moment` (microseconds since 1970)."""
    return (moment / DAY - birthday) / DAYS_PER_MONTH


def age_in_stages(months: Floats) -> Floats:
    """Age on the scale of stages: 2.5 is the middle of the third one. Past the last bound it stays there."""
    return np.interp(months, CHILD_AGE_MONTHS, np.arange(len(CHILD_AGE_MONTHS)))


def _tastes(users: int, style: Floats, rng: np.random.Generator) -> Floats:
    personas = persona_weights()
    mixture = rng.dirichlet(np.full(len(personas), parameters.PERSONA_CONCENTRATION), size=users)
    taste = mixture @ personas + parameters.OWN_TASTE * rng.normal(size=(users, personas.shape[1]))
    # Centred on the mean design: taste says what somebody likes more than the others do, popularity is elsewhere.
    offset = taste @ style.mean(axis=0)
    taste -= offset[:, None] / len(vocabulary.STYLE)
    variation = style - style.mean(axis=0)
    spread = np.sqrt(((taste @ (variation.T @ variation)) * taste).sum(axis=1).mean() / len(style))
    return taste / max(spread, 1e-9)
