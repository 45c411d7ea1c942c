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
    """n users with one child each. A field has shape [n], one element for each user, unless it says more."""

    birthday: Ints
    """Of the child, in days since 1970; not after START."""
    gender: Ints
    """Of the child: 0 for a boy, 1 for a girl."""
    is_known: Bools
    """Whether the shop knows the child's birthday and gender."""
    taste: Floats
    """[n, STYLE_WIDTH]: how much the user likes each level. Its dot products with the designs' styles have mean 0 for
    each user, and standard deviation 1 over all users and designs."""
    interest: Floats
    """[n, categories], effect of each category on the log-odds of a click."""
    bias: Floats
    """The user's own effect on the log-odds of a click."""
    price: Floats
    """Effect on the log-odds of a click for each unit of ln(price) above the usual price of the category."""
    activity: Floats
    """Share of all page views that the user makes; sums to 1."""


def make_people(users: int, style: Floats, seed: int) -> People:
    """Return the users of a shop.

    Args:
        users: the number of users, at least 1.
        style: [designs, STYLE_WIDTH], the result of `Designs.style`; tastes are scaled to it.
        seed: the shop's seed; the same arguments give the same users.
    """
    rng = make_generator(seed, "people")
    stage = rng.choice(len(parameters.CHILD_STAGES), size=users, p=parameters.CHILD_STAGES)
    bounds = np.array(CHILD_AGE_MONTHS)
    months = rng.uniform(bounds[stage], bounds[stage + 1])
    activity = rng.gamma(3.0, size=users)
    return People(
        birthday=START_DAY - np.ceil(months * DAYS_PER_MONTH).astype(np.int64),
        gender=rng.integers(0, 2, size=users),
        is_known=rng.random(users) < parameters.KNOWN_CHILD,
        taste=_make_tastes(users, style, rng),
        interest=parameters.INTEREST_SPREAD * rng.normal(size=(users, len(vocabulary.CATEGORIES))),
        bias=parameters.USER_SPREAD * rng.normal(size=users),
        price=parameters.PRICE + parameters.PRICE_SPREAD * rng.normal(size=users),
        activity=activity / activity.sum(),
    )


def age_months(birthday: Ints, timestamp_us: Ints) -> Floats:
    """Return the age in months of DAYS_PER_MONTH days, with a fraction; negative before birth, NaN for a NaN birthday.

    Args:
        birthday: [n], days since 1970.
        timestamp_us: [n], the time of each age, microseconds since 1970. A birthday starts at the midnight of the same
            clock.
    """
    return (timestamp_us / DAY - birthday) / DAYS_PER_MONTH


def age_in_stages(months: Floats) -> Floats:
    """Return ages on the scale of stages: 2.5 is the middle of CHILD_AGES[2].

    Args:
        months: ages in months, of any shape. Ages below 0 give 0, ages beyond the last stage its end, 5; NaN stays NaN.
    """
    return np.interp(months, CHILD_AGE_MONTHS, np.arange(len(CHILD_AGE_MONTHS)))


def _make_tastes(users: int, style: Floats, rng: np.random.Generator) -> Floats:
    """Return random tastes [users, STYLE_WIDTH]: a mixture of personas and a part of their own."""
    personas = persona_weights()
    mixture = rng.dirichlet(np.full(len(personas), parameters.PERSONA_CONCENTRATION), size=users)
    taste = mixture @ personas + parameters.OWN_TASTE * rng.normal(size=(users, personas.shape[1]))
    # Centred on the mean design: taste is relative to other designs; popularity is a separate effect.
    offset = taste @ style.mean(axis=0)
    taste -= offset[:, None] / len(vocabulary.STYLE)
    variation = style - style.mean(axis=0)
    spread = np.sqrt(((taste @ (variation.T @ variation)) * taste).sum(axis=1).mean() / len(style))
    return taste / max(spread, 1e-9)
