"""The control for leaks and for luck: the same features after products have swapped their pictures and words.

Products of the same modalities and the same newness swap vectors and tags as a whole, one permutation for all times,
and everything derived from them is computed again. What such features still lift is not about content.
"""

import numpy as np
from numpy.typing import NDArray

from consumers.ranking.training_set import Ints, JoinedView, TrainingSet
from feature_repo import schema

CONTENT_VIEWS = (schema.EMBEDDING_TABLE, schema.TAGS_TABLE, schema.CODES_TABLE)
"""The views whose rows swap; what the shop says of a product stays with it."""
REFRESHED_VIEWS = (schema.NEIGHBOURS_TABLE,)
"""Views made from content whose versions come with time and not with the product: a row gets its partner's of then."""


def permute_content(data: TrainingSet, new_since: int, seed: int) -> TrainingSet:
    """The same log with the content of products permuted.

    Args:
        data: the joined log; it has the view product_embedding.
        new_since: products first listed at or after this time (microseconds) swap among themselves.
        seed: of the permutation.
    """
    product = data.product
    partner = _partners(product, data.views[schema.EMBEDDING_TABLE], new_since, np.random.default_rng(seed))
    views = dict(data.views)
    for name, view in data.views.items():
        if name in CONTENT_VIEWS:
            views[name] = permute_view(view, product, partner)
        elif name in REFRESHED_VIEWS:
            views[name] = permute_view_as_of(view, product, partner, data.time)
    return data.with_views(views)


def permute_view(view: JoinedView, product: Ints, partner: Ints) -> JoinedView:
    """Give every product its partner's versions: the first for the first, and the last where it has fewer.

    Args:
        view: the joined view.
        product: code of each impression's product [n].
        partner: code of the product to swap with [products].
    """
    versions: dict[int, list[int]] = {}
    owner = _owners(view, product)
    for version in np.argsort(view.since, kind="stable"):
        versions.setdefault(int(owner[version]), []).append(int(version))
    replaced = np.arange(len(owner))
    for code, mine in versions.items():
        theirs = versions.get(int(partner[code]), mine)
        replaced[mine] = [theirs[min(rank, len(theirs) - 1)] for rank in range(len(mine))]
    row = np.full(len(view.row), -1)
    row[view.row >= 0] = replaced[view.row[view.row >= 0]]
    return JoinedView(view.versions, view.since, row)


def permute_view_as_of(view: JoinedView, product: Ints, partner: Ints, time: Ints) -> JoinedView:
    """Give every row the newest version of its product's partner that held by then; none where there was none.

    Args:
        view: the joined view.
        product: code of each impression's product [n].
        partner: code of the product to swap with [products].
        time: of each impression, microseconds [n].
    """
    owner = _owners(view, product)
    moments = np.unique(view.since)
    width = len(moments) + 1
    key = owner * width + np.searchsorted(moments, view.since) + 1
    order = np.argsort(key, kind="stable")
    asked = partner[product] * width + np.searchsorted(moments, time, side="right")
    place = np.searchsorted(key[order], asked, side="right") - 1
    found = np.where(place >= 0, order[place], -1)
    found = np.where((found >= 0) & (owner[found] == partner[product]), found, -1)
    return JoinedView(view.versions, view.since, np.where(view.row >= 0, found, -1))


def _owners(view: JoinedView, product: Ints) -> Ints:
    """Code of the product that each version is of [versions]."""
    owner = np.full(len(view.since), -1)
    known = view.row >= 0
    owner[view.row[known]] = product[known]
    return owner


def _partners(product: Ints, embedding: JoinedView, new_since: int, chance: np.random.Generator) -> Ints:
    """A permutation of product codes [products] within (has an image, has a title, is new), as of the first version."""
    products = int(product.max(initial=-1)) + 1
    first = np.full(products, -1)
    newest_first = np.argsort(-embedding.since, kind="stable")
    first[_owners(embedding, product)[newest_first]] = newest_first
    stratum = np.full(products, -1)
    known = first >= 0
    flags: list[NDArray[np.bool_]] = [
        embedding.versions.column(name).to_numpy()[first[known]] for name in ("has_image", "has_text")
    ]
    stratum[known] = 4 * flags[0] + 2 * flags[1] + (embedding.since[first[known]] >= new_since)
    partner = np.arange(products)
    for value in np.unique(stratum[known]):
        members = np.flatnonzero(stratum == value)
        partner[members] = chance.permutation(members)
    return partner
