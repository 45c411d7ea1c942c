"""The control for leaks and for luck: the same features after products have swapped their pictures and words.

Products of the same modalities and the same newness swap vectors and tags as a whole, one permutation for all times,
and everything derived from them is computed again. What such features still lift is not about content.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from consumers.ranking.training_set import JoinedView, TrainingSet
from feature_repo.schema import EVENT_TIMESTAMP, PRODUCT_ID

CONTENT_VIEWS = ("product_embedding", "product_tags")
"""The views whose rows swap; what the shop says of a product stays with it."""


def with_swapped_content(data: TrainingSet, new_since: int, seed: int) -> TrainingSet:
    """The same log with the content of products permuted.

    Args:
        data: the joined log.
        new_since: products first seen at or after this time (microseconds) swap among themselves.
        seed: of the permutation.
    """
    embedding = data.views["product_embedding"].versions
    strata = _strata(embedding, new_since)
    permuted = _permutation(strata, np.random.default_rng(seed))
    views = {name: swapped(view, permuted) if name in CONTENT_VIEWS else view for name, view in data.views.items()}
    return data.with_views(views)


def swapped(view: JoinedView, partner: Mapping[str, str]) -> JoinedView:
    """Give every product the version of its partner of the same age rank; its last where it has fewer."""
    product = view.versions.column(PRODUCT_ID).to_pylist()
    time = view.versions.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()
    versions: dict[str, list[int]] = {}
    for version in np.argsort(time, kind="stable"):
        versions.setdefault(product[version], []).append(int(version))
    replaced = np.arange(len(product))
    for name, mine in versions.items():
        theirs = versions.get(partner.get(name, name), mine)
        replaced[mine] = [theirs[min(rank, len(theirs) - 1)] for rank in range(len(mine))]
    return JoinedView(view.versions, np.where(view.row >= 0, replaced[view.row], -1))


def _strata(embedding: pa.Table, new_since: int) -> dict[str, tuple[bool, bool, bool]]:
    """Product to (has an image, has a title, is new), as of its first version."""
    first = embedding.sort_by([(EVENT_TIMESTAMP, "descending")])
    time = first.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()
    columns = (first.column(name).to_pylist() for name in (PRODUCT_ID, "has_image", "has_text"))
    return {
        product: (image, text, bool(when >= new_since))
        for product, image, text, when in zip(*columns, time, strict=True)
    }


def _permutation(strata: Mapping[str, tuple[bool, bool, bool]], chance: np.random.Generator) -> dict[str, str]:
    members: dict[tuple[bool, bool, bool], list[str]] = {}
    for product in sorted(strata):
        members.setdefault(strata[product], []).append(product)
    partner: dict[str, str] = {}
    for stratum in members.values():
        partner |= dict(zip(stratum, chance.permutation(np.array(stratum, object)), strict=True))
    return partner
