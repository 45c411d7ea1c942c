"""The settings of the demo shop. FROZEN: chosen so that an experiment has power, before anything was tuned on them.

Whoever changes one changes the exam: every figure measured on the shop has to be measured again. They were aimed at
a click rate of 5-8%, a tabular baseline of AUC 0.68-0.73, an oracle (the true click probability) of 0.80-0.82, new
products making at least 20% of the impressions of the last 10 days, and titles that give away the child age stage of
about 70% of the products. Reached at the default size on seeds 0 to 4: 6.5%, 0.712-0.725, 0.804-0.808, 27-30%, and
0.70 (bag of words); the baseline given true tags and tastes 0.771-0.779.
"""

START = "2026-01-01T00:00:00"
"""The log covers [START, START + days), UTC."""
NEWEST_SHARE = 1 / 6
"""Products listed in this last part of the log (10 of 60 days) bear no labels: no annotator has seen them yet."""

# Products.
SELLERS_PER_DESIGN = (0.34, 0.30, 0.21, 0.15)  # 1, 2, 3, 4 products of one design
EXISTING_SHARE = 0.5  # listed before START, the rest over the days
SELLERS = 160
BRANDS = 60
PERSONA_FIDELITY = 6.0  # how much likelier an attribute of the design's persona is than another
APPARENT_AGE_SPREAD = 0.42  # of the age a design looks, in stages
POPULARITY_SPREAD = 1.1  # of log popularity: the long tail
QUALITY_SPREAD = 0.50  # of its effect on the log-odds; half of the variance is the design's, half the seller's
WRONG_CATEGORY = 0.04
MISSING_CATEGORY = 0.03
MISSING_BRAND = 0.10
LABELLED_DESIGNS = 0.60  # of the designs that annotators could see

# Pictures.
MISSING_IMAGE = 0.04
LOW_QUALITY_IMAGE = {"blurred": 0.02, "grey": 0.015, "small": 0.015}
AGE_DETAIL_FIDELITY = 0.80  # how often an age-typical detail is drawn for the true stage
MODEL_SHOWN = 0.38  # of the pictures: a child of the stage stands in the corner
GENDER_SHOWN = 0.70  # of the pictures of things for boys or girls: a pennant or a bow

# Titles.
SAYS_BRAND = 0.5
SAYS_AGE = 0.80
SAYS_GENDER = 0.55
SAYS_COLOUR = 0.75
SAYS_PATTERN = 0.75
SAYS_EMBLEM = 0.70
SAYS_FUNCTION = 0.90
STUFFED = 0.35
"""Titles stuffed with words that do not apply (蹭词); in those, how often each kind is added:"""
STUFFS_AGE = 0.70  # and half as often a second age
STUFFS_GENDER = 0.30
STUFFS_COLOUR = 0.30
STUFFS_PATTERN = 0.25
STUFFS_FUNCTION = 0.40
STUFFS_CATEGORY = 0.30

# People.
KNOWN_CHILD = 0.60
CHILD_STAGES = (0.19, 0.19, 0.27, 0.21, 0.14)  # of the children at START
PERSONA_CONCENTRATION = 0.25  # Dirichlet: small means most users lean to one persona
OWN_TASTE = 0.45  # weight of the user's own likes beside the persona's

# Impressions.
PAGE = (6, 14)  # products on one page view, both included
PAGE_SECONDS = 90.0
NEW_LANE = 0.25  # of the slots go to new arrivals,
NEW_LANE_DAYS = 4.0  # whose weight falls by e in so many days
RECENCY_DAYS = 25.0
CANDIDATES = 3  # drawn per slot, one of which the recommender picks
PICKS_BY_AGE, PICKS_BY_INTEREST, PICKS_BY_TASTE = 0.5, 0.5, 0.15

# Clicks: effects on the log-odds.
CLICK_RATE = 0.065
USER_SPREAD = 0.60
INTEREST_SPREAD = 0.30  # of a user's liking for a category
BRAND_SPREAD = 0.30
SESSION_SPREAD = 0.25
AGE_GAP = -0.80  # per stage between the child and the product, at most
AGE_GAP_LIMIT = 2.0
WRONG_GENDER = -0.65
TASTE_SPREAD = 0.50
PRICE = -0.45  # per unit of log price over its category's
PRICE_SPREAD = 0.20  # between users
POSITION = -0.40  # per unit of log position
HOUR_EVENING = 0.25
