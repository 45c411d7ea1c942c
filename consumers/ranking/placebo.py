"""The placebo, the control for leaks and for chance: the same features after products exchanged their content.

Products with the same modalities and the same newness exchange vectors, tags and codes as a whole, with one permutation
for all times. Everything derived from them is computed again. What these features still lift is not about content.
"""

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.training_set import Ints, JoinedView, RankingTrainingSet
from feature_repo import schema

CONTENT_VIEWS = (schema.EMBEDDING_TABLE, schema.TAGS_TABLE, schema.CODES_TABLE)
"""Views whose versions are exchanged. The catalogue stays with its product."""
REFRESHED_VIEWS = (schema.NEIGHBOURS_TABLE,)
"""Views that are computed from content at regular times: a row gets its partner's version of that time."""


def permute_content(data: RankingTrainingSet, new_since_us: int, seed: int) -> RankingTrainingSet:
    """Return the same log, in which products have exchanged their vectors, tags, codes and neighbours.

    Products exchange content only if the first vectors of both have an image or both not, have a title or both not, and
    both are new or both not. A product can be given its own content. One without a row of vectors keeps its own. The
    catalogue and the users' histories stay. `data` is not changed.

    Args:
        data: the joined log; it must have the view product_embedding.
        new_since_us: a product is new if its first vectors have this event timestamp, in microseconds since 1970 UTC,
            or a later one.
        seed: seed of the permutation.

    Raises:
        KeyError: product_embedding is not joined.
    """
    product = data.product
    embedding = data.views[schema.EMBEDDING_TABLE]
    partner = _draw_partners(product, embedding, new_since_us, np.random.default_rng(seed))
    views = dict(data.views)
    for name, view in data.views.items():
        if name in CONTENT_VIEWS:
            views[name] = permute_view(view, product, partner)
        elif name in REFRESHED_VIEWS:
            views[name] = permute_view_as_of(view, product, partner, data.timestamp_us)
    return data.with_views(views)


def permute_view(view: JoinedView, product: Ints, partner: Ints) -> JoinedView:
    """Give every product its partner's versions in order of time: the first for the first, and so on.

    A partner with fewer versions gives its last one for the rest; a partner without any leaves the product's own. Only
    versions that some impression has are exchanged. An impression without a version still has none.

    Args:
        view: the joined view.
        product: code of each impression's product [n].
        partner: for each product, the code of the one that gives it its versions [products].

    Returns:
        The view with the same versions and another `row_index`.
    """
    versions: dict[int, list[int]] = {}
    owner = _owners(view, product)
    for version in np.argsort(view.timestamp_us, kind="stable"):
        versions.setdefault(int(owner[version]), []).append(int(version))
    replaced = np.arange(len(owner))
    for code, own in versions.items():
        theirs = versions.get(int(partner[code]), own)
        replaced[own] = [theirs[min(rank, len(theirs) - 1)] for rank in range(len(own))]
    row_index = np.full(len(view.row_index), -1)
    row_index[view.row_index >= 0] = replaced[view.row_index[view.row_index >= 0]]
    return JoinedView(view.versions, view.timestamp_us, row_index)


def permute_view_as_of(view: JoinedView, product: Ints, partner: Ints, timestamp_us: Ints) -> JoinedView:
    """Give every impression the latest version of its product's partner at or before its time, or none.

    An impression gets none if its partner has no version yet, or if it had none before. Only versions that some
    impression has are exchanged.

    Args:
        view: the joined view.
        product: code of each impression's product [n].
        partner: for each product, the code of the one that gives it its versions [products].
        timestamp_us: time of each impression, in microseconds since 1970 UTC [n].

    Returns:
        The view with the same versions and another `row_index`.
    """
    owner = _owners(view, product)
    timestamps = np.unique(view.timestamp_us)
    width = len(timestamps) + 1
    key = owner * width + np.searchsorted(timestamps, view.timestamp_us) + 1
    order = np.argsort(key, kind="stable")
    wanted = partner[product] * width + np.searchsorted(timestamps, timestamp_us, side="right")
    position = np.searchsorted(key[order], wanted, side="right") - 1
    version = np.where(position >= 0, order[position], -1)
    version = np.where((version >= 0) & (owner[version] == partner[product]), version, -1)
    return JoinedView(view.versions, view.timestamp_us, np.where(view.row_index >= 0, version, -1))


def _owners(view: JoinedView, product: Ints) -> Ints:
    """Code of each version's product [versions]; -1 for a version that no row has."""
    owner = np.full(len(view.timestamp_us), -1)
    valid = view.row_index >= 0
    owner[view.row_index[valid]] = product[valid]
    return owner


def _draw_partners(product: Ints, embedding: JoinedView, new_since_us: int, generator: np.random.Generator) -> Ints:
    """Permute product codes [products] within strata of (has an image, has a title, is new), by the first version."""
    products = int(product.max(initial=-1)) + 1
    first = np.full(products, -1)
    newest_first = np.argsort(-embedding.timestamp_us, kind="stable")
    first[_owners(embedding, product)[newest_first]] = newest_first
    stratum = np.full(products, -1)
    valid = first >= 0
    flags: list[NDArray[np.bool_]] = [
        embedding.versions.column(name).to_numpy()[first[valid]] for name in ("has_image", "has_text")
    ]
    stratum[valid] = 4 * flags[0] + 2 * flags[1] + (embedding.timestamp_us[first[valid]] >= new_since_us)
    partner = np.arange(products)
    for value in np.unique(stratum[valid]):
        members = np.flatnonzero(stratum == value)
        partner[members] = generator.permutation(members)
    return partner
