"""Ids that groups keep while products come and go.

An id belongs to the group, not to a member: a group keeps its id while one of its members stays. When groups
are divided or joined, the id goes to the part with which the old group shares most members.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b

CHANGES = ("joined", "merged", "split", "gone", "returned")
"""How a product's group changes. `joined`: it is in its first group. `merged`: it moved to another group, and none
stays in its former one. `split`: it moved, and other products stay in its former group. `gone`: it left the catalogue.
`returned`: it is back in the catalogue, and in the same group as before."""


def assign_group_ids(
    product_ids: Sequence[str], clusters: Sequence[int], former: Sequence[str | None], created_us: int
) -> list[str]:
    """Return the group id of each of n products.

    The largest overlap of a cluster with a former group decides first, then the id of the group, so that the same input
    gives the same ids. A cluster that gets no former id gets a new one.

    Args:
        product_ids: [n].
        clusters: [n], equal for products of one group.
        former: [n], the id of the group that the product was in; None for a new product.
        created_us: the run's created timestamp, which makes new ids differ from earlier ones.
    """
    overlap = Counter((cluster, group) for cluster, group in zip(clusters, former, strict=True) if group is not None)
    chosen: dict[int, str] = {}
    taken: set[str] = set()
    for (cluster, group), _ in sorted(overlap.items(), key=lambda item: (-item[1], item[0][1], item[0][0])):
        if cluster not in chosen and group not in taken:
            chosen[cluster] = group
            taken.add(group)
    first: dict[int, str] = {}
    for product_id, cluster in zip(product_ids, clusters, strict=True):
        first[cluster] = min(product_id, first.get(cluster, product_id))
    return [chosen.get(cluster) or make_group_id(first[cluster], created_us) for cluster in clusters]


def name_changes(former: Sequence[str | None], current: Sequence[str]) -> list[str | None]:
    """Return which of CHANGES happened to each product; None if its group is the same.

    Args:
        former: [n], group ids; None for a new product. All active products of the groups that changed are among them.
        current: [n].
    """
    staying = {group for group, now in zip(former, current, strict=True) if group == now}
    return [
        None if before == now else "joined" if before is None else "split" if before in staying else "merged"
        for before, now in zip(former, current, strict=True)
    ]


def make_group_id(product_id: str, created_us: int) -> str:
    """Return a new id, `g-` and 16 hex digits: a digest that tells nothing about the product."""
    return f"g-{blake2b(f'{created_us} {product_id}'.encode(), digest_size=8).hexdigest()}"
