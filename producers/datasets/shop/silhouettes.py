"""The outline of each category by the age of the child.

`growth` (0 to 1) is the age that a product is cut for: for young children it is short and wide. `detail` (0 to 4, an
index into CHILD_AGES) selects parts that are typical of an age stage, such as mitts, handles, laces or pockets.
"""

from collections.abc import Callable

import numpy as np

from producers.datasets.shop import clothes, non_clothing
from producers.datasets.shop.shapes import Polygon, Silhouette, box, ellipse


def make_outline(category: str, growth: float, detail: int) -> Silhouette:
    """Return the silhouette of a product, centred, its longer side scaled to [-1, 1]; y is downwards.

    The place of the emblem is moved and scaled with it.

    Args:
        category: the name of a category of vocabulary.CATEGORIES.
        growth: the age that the product is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts are shown, an index into CHILD_AGES: 0 to 4.

    Raises:
        KeyError: there is no such category.
    """
    shape = _DRAWERS[category](growth, detail)
    corners = np.concatenate([part.points for part in shape.parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, half = (low + high) / 2, (high - low).max() / 2
    x, y, size = shape.emblem
    return Silhouette(
        [Polygon((part.points - middle) / half, part.paint) for part in shape.parts],
        ((x - middle[0]) / half, (y - middle[1]) / half, size / half),
    )


def make_child(stage: int) -> Silhouette:
    """Return a child of an age stage: lying, sitting, then standing, taller and with a smaller head at each stage.

    The feet are near y = 1, downwards, and the tallest child has height 2. The place of the emblem is unused.

    Args:
        stage: index into CHILD_AGES, 0 to 4.
    """
    if stage == 0:
        parts = [
            Polygon(ellipse(0.1, 0.85, 0.42, 0.15), "accent"),
            Polygon(ellipse(-0.4, 0.82, 0.19, 0.18), "skin"),
        ]
    elif stage == 1:
        parts = [Polygon(ellipse(0, 0.72, 0.27, 0.28), "accent"), Polygon(ellipse(0.18, 0.9, 0.3, 0.1), "accent")]
        parts.append(Polygon(ellipse(0, 0.32, 0.22, 0.21), "skin"))
    else:
        top = (0.1, -0.4, -1.0)[stage - 2]
        head = (0.21, 0.19, 0.18)[stage - 2]
        leg = 1 - (1 - top - 2 * head) * 0.5
        parts = [Polygon(box(side * 0.11 - 0.08, leg - 0.05, side * 0.11 + 0.08, 1.0, 1), "dark") for side in (-1, 1)]
        parts.append(Polygon(box(-0.24, top + 2 * head - 0.04, 0.24, leg + 0.04, 1), "accent"))
        parts.append(Polygon(ellipse(0, top + head, head, head), "skin"))
    return Silhouette(parts, (0, 0, 0))


_DRAWERS: dict[str, Callable[[float, int], Silhouette]] = {
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
