"""The parameters of the generated shop. They are FROZEN: every figure measured on the shop depends on them.

They were chosen before any model was tuned, so that an experiment on the shop has statistical power. Targets: a click
rate of 5-8%, AUC 0.68-0.73 of the tabular baseline, AUC 0.80-0.82 of the oracle (the true click probability), at least
20% of the impressions of the last 10 days on new products, and titles that reveal the child age stage of about 70% of
the products. Measured at the default size on seeds 0 to 4: 6.5%, 0.712-0.725, 0.804-0.808, 27-30%, and 0.70 (bag of
words). The baseline with true tags and tastes has an AUC of 0.771-0.779.
"""

START = "2026-01-01T00:00:00"
"""The log covers [START, START + days), UTC."""
NEWEST_SHARE = 1 / 6
"""Products listed in this last share of the log (10 of 60 days) have no labels, as if not annotated yet."""

# Products.
SELLERS_PER_DESIGN = (0.34, 0.30, 0.21, 0.15)  # probability of 1, 2, 3, 4 products of one design
EXISTING_SHARE = 0.5  # share listed before START; the rest is listed over the days
SELLERS = 160
BRANDS = 60
PERSONA_FIDELITY = 6.0  # odds of an attribute of the design's persona against another
APPARENT_AGE_SPREAD = 0.42  # standard deviation of the age that a design looks, in stages
POPULARITY_SPREAD = 1.1  # standard deviation of log popularity, for a long tail
QUALITY_SPREAD = 0.50  # standard deviation of its effect on the log-odds; half the variance each from design and seller
WRONG_CATEGORY = 0.04
MISSING_CATEGORY = 0.03
MISSING_BRAND = 0.10
LABELLED_DESIGNS = 0.60  # share of the designs that annotators could see

# Offers. They have random streams of their own, and no user reacts to them.
OUT_OF_STOCK = 0.08
MEAN_SALES = 20.0  # units sold of a product with the median popularity
FURTHER_IMAGE = 0.15  # share of the products with an image that have a second one

# Images: shares.
MISSING_IMAGE = 0.04
LOW_QUALITY_IMAGE = {"blurred": 0.02, "grey": 0.015, "small": 0.015}
AGE_DETAIL_FIDELITY = 0.80  # probability that an age-typical detail is drawn for the true stage
MODEL_SHOWN = 0.38  # a child of the stage is in the corner
GENDER_SHOWN = 0.70  # of the images of products for boys or girls, with a pennant or a bow

# Titles: probability that a title states the attribute.
SAYS_BRAND = 0.5
SAYS_AGE = 0.80
SAYS_GENDER = 0.55
SAYS_COLOUR = 0.75
SAYS_PATTERN = 0.75
SAYS_EMBLEM = 0.70
SAYS_FUNCTION = 0.90
STUFFED = 0.35
"""Share of titles with added words that do not apply (蹭词); in these, the probability of each kind:"""
STUFFS_AGE = 0.70  # a second age with half this probability
STUFFS_GENDER = 0.30
STUFFS_COLOUR = 0.30
STUFFS_PATTERN = 0.25
STUFFS_FUNCTION = 0.40
STUFFS_CATEGORY = 0.30

# People.
KNOWN_CHILD = 0.60
CHILD_STAGES = (0.19, 0.19, 0.27, 0.21, 0.14)  # share of each stage among the children at START
PERSONA_CONCENTRATION = 0.25  # of a Dirichlet distribution; a small value makes most users prefer one persona
OWN_TASTE = 0.45  # weight of the user's own taste beside the persona's

# Impressions.
PAGE = (6, 14)  # products of one page view, bounds inclusive
PAGE_SECONDS = 90.0
NEW_LANE = 0.25  # share of slots for new products,
NEW_LANE_DAYS = 4.0  # whose weight falls by a factor of e in this many days
RECENCY_DAYS = 25.0
CANDIDATES = 3  # drawn for each slot; the recommender picks one
PICKS_BY_AGE, PICKS_BY_INTEREST, PICKS_BY_TASTE = 0.5, 0.5, 0.15

# Clicks: effects on the log-odds.
CLICK_RATE = 0.065
USER_SPREAD = 0.60
INTEREST_SPREAD = 0.30  # of a user's interest in a category
BRAND_SPREAD = 0.30
SESSION_SPREAD = 0.25
AGE_GAP = -0.80  # per stage between the child and the product, at most
AGE_GAP_LIMIT = 2.0
WRONG_GENDER = -0.65
TASTE_SPREAD = 0.50
PRICE = -0.45  # per unit of log price above the category's usual one
PRICE_SPREAD = 0.20  # between users
POSITION = -0.40  # per unit of log position
HOUR_EVENING = 0.25
