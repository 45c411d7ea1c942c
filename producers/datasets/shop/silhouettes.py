"""The outline of each category, as it grows with the child.

A silhouette is a list of parts in the order in which they are painted. `growth` (0 to 1) is how old the child is that
the thing was cut for: the young are short and plump. `detail` (0 to 4, as CHILD_AGES) is what is typical of the stage:
mitts and feet, handles, laces, pockets.
"""

from collections.abc import Callable

import numpy as np

from producers.datasets.shop import clothes, non_clothing
from producers.datasets.shop.shapes import Part, Silhouette, box, ellipse


def outline(category: str, growth: float, detail: int) -> Silhouette:
    """The silhouette of the category of that name (vocabulary.CATEGORIES), fitted into the unit square."""
    found = _DRAWN_BY[category](growth, detail)
    corners = np.concatenate([part.points for part in found.parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, half = (low + high) / 2, (high - low).max() / 2
    x, y, size = found.emblem
    return Silhouette(
        [Part((part.points - middle) / half, part.paint) for part in found.parts],
        ((x - middle[0]) / half, (y - middle[1]) / half, size / half),
    )


def child(stage: int) -> Silhouette:
    """A child of the stage: lying, sitting, then standing ever taller under an ever smaller head. Height in units of
    the largest child's; the emblem's place is of no meaning."""
    if stage == 0:
        parts = [Part(ellipse(0.1, 0.85, 0.42, 0.15), "accent"), Part(ellipse(-0.4, 0.82, 0.19, 0.18), "skin")]
    elif stage == 1:
        parts = [Part(ellipse(0, 0.72, 0.27, 0.28), "accent"), Part(ellipse(0.18, 0.9, 0.3, 0.1), "accent")]
        parts.append(Part(ellipse(0, 0.32, 0.22, 0.21), "skin"))
    else:
        top = (0.1, -0.4, -1.0)[stage - 2]
        head = (0.21, 0.19, 0.18)[stage - 2]
        leg = 1 - (1 - top - 2 * head) * 0.5
        parts = [Part(box(side * 0.11 - 0.08, leg - 0.05, side * 0.11 + 0.08, 1.0, 1), "dark") for side in (-1, 1)]
        parts.append(Part(box(-0.24, top + 2 * head - 0.04, 0.24, leg + 0.04, 1), "accent"))
        parts.append(Part(ellipse(0, top + head, head, head), "skin"))
    return Silhouette(parts, (0, 0, 0))


_DRAWN_BY: dict[str, Callable[[float, int], Silhouette]] = {
    "romper": clothes.romper,
    "top": clothes.top,
    "trousers": clothes.trousers,
    "dress": clothes.dress,
    "shoes": clothes.shoes,
    "hat": clothes.hat,
    "diaper": clothes.diaper,
    "sleepsack": clothes.sleepsack,
    "bottle": non_clothing.bottle,
    "tableware": non_clothing.tableware,
    "blocks": non_clothing.blocks,
    "plush": non_clothing.plush,
    "wash": non_clothing.wash,
    "backpack": non_clothing.backpack,
}
