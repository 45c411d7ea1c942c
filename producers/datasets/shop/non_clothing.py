"""Silhouettes of toys, tableware, bags and care products. Coordinates are about -1 to 1; silhouettes.py scales them.

Stages are indices into CHILD_AGES: 0 for newborns to 4 for schoolchildren.
"""

import numpy as np

from producers.datasets.shop.shapes import Polygon, Silhouette, box, ellipse, interpolate, mirror, smooth


def bottle(growth: float, detail: int) -> Silhouette:
    """Return a bottle with a teat, handles, a straw, a strap or a sports cap at stages 0 to 4.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, high = interpolate(0.46, 0.3, growth), interpolate(0.45, 1.0, growth)
    parts = [
        Polygon(box(-width, -high, width, high)),
        Polygon(box(-width * 0.8, -high - 0.16, width * 0.8, -high + 0.04, 1), "accent"),
    ]
    if detail == 0:
        parts.append(
            Polygon(
                smooth(
                    np.array([(-0.2, -high - 0.16), (-0.08, -high - 0.5), (0.08, -high - 0.5), (0.2, -high - 0.16)])
                ),
                "light",
            )
        )
    elif detail == 1:
        for side in (-1, 1):
            parts.insert(0, Polygon(ellipse(side * (width + 0.1), 0, 0.22, 0.32), "accent"))
        parts.append(Polygon(box(-0.1, -high - 0.34, 0.1, -high - 0.14, 1), "light"))
    elif detail == 2:
        parts.append(
            Polygon(
                np.array([(0.02, -high - 0.12), (0.1, -high - 0.12), (0.3, -high - 0.5), (0.22, -high - 0.5)]), "dark"
            )
        )
    elif detail == 3:
        parts.insert(
            0,
            Polygon(
                smooth(
                    np.array(
                        [
                            (-width, -high + 0.1),
                            (-width - 0.25, -high),
                            (-width - 0.25, high * 0.4),
                            (-width, high * 0.3),
                        ]
                    )
                ),
                "dark",
            ),
        )
    else:
        parts.append(Polygon(box(-width * 0.5, -high - 0.34, width * 0.5, -high - 0.12, 1), "dark"))
    return Silhouette(parts, (0, 0.05, 0.25))


def tableware(growth: float, detail: int) -> Silhouette:
    """Return a bowl: a suction foot at stages 0 and 1, ears at 1, a spoon from 2 on, a fork from 3 on, a lid at 4.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width = interpolate(0.6, 1.0, growth)
    bowl = smooth(
        np.array(
            [
                (-width, -0.15),
                (width, -0.15),
                (width * 0.8, 0.3),
                (width * 0.4, 0.5),
                (-width * 0.4, 0.5),
                (-width * 0.8, 0.3),
            ]
        )
    )
    parts = [Polygon(bowl), Polygon(ellipse(0, -0.14, width, 0.16), "light")]
    if detail <= 1:
        parts += [Polygon(ellipse(0, 0.52, 0.3, 0.1), "accent")]
    if detail == 1:
        parts += [Polygon(ellipse(side * width, -0.02, 0.16, 0.13), "accent") for side in (-1, 1)]
    if detail >= 2:
        parts += [
            Polygon(box(width + 0.08, -0.5, width + 0.2, 0.5, 1), "accent"),
            Polygon(ellipse(width + 0.14, -0.5, 0.13, 0.18), "accent"),
        ]
    if detail >= 3:
        parts += [Polygon(box(-width - 0.2, -0.6, -width - 0.08, 0.5, 1), "dark")]
    if detail == 4:
        parts += [Polygon(ellipse(0, -0.36, width * 0.5, 0.2), "accent")]
    return Silhouette(parts, (0, 0.16, 0.22))


def blocks(growth: float, detail: int) -> Silhouette:
    """Return blocks: 2, 3, 5, 7 or 10 of them at stages 0 to 4, smaller with age.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    rows = ((1, 1), (2, 1), (2, 2, 1), (3, 2, 2), (4, 3, 2, 1))[detail]
    size = interpolate(0.5, 0.34, growth)
    parts = []
    for level, count in enumerate(rows):
        for i in range(count):
            x, y = (i - (count - 1) / 2) * size * 2.06, 0.6 - level * size * 2.06
            paint = "body" if (i + level) % 3 != 1 else "accent"
            parts.append(Polygon(box(x - size, y - size, x + size, y + size, 1), paint))
    return Silhouette(parts, (-(rows[0] - 1) * size * 1.03, 0.6, size * 0.62))


def plush(growth: float, detail: int) -> Silhouette:
    """Return a plush toy: smaller head and longer limbs with age; a scarf at stages 0 and 2, trousers at 3 and 4.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    head, body, limb = interpolate(0.5, 0.34, growth), interpolate(0.36, 0.42, growth), interpolate(0.14, 0.44, growth)
    parts = [Polygon(ellipse(side * 0.36, 0.36 + body * 0.8 + limb * 0.5, 0.17, 0.14 + limb * 0.6)) for side in (-1, 1)]
    parts += [Polygon(ellipse(side * (body + limb * 0.5), 0.2, 0.14 + limb * 0.6, 0.15)) for side in (-1, 1)]
    parts += [Polygon(ellipse(side * head * 0.75, -0.3 - head * 0.8, head * 0.34, head * 0.34)) for side in (-1, 1)]
    parts += [Polygon(ellipse(0, 0.32, body, body * 1.1)), Polygon(ellipse(0, -0.3, head, head * 0.92))]
    parts += [Polygon(ellipse(side * head * 0.36, -0.36, 0.06, 0.07), "dark") for side in (-1, 1)]
    parts += [
        Polygon(ellipse(0, -0.18, head * 0.34, head * 0.24), "light"),
        Polygon(ellipse(0, -0.22, 0.06, 0.04), "dark"),
    ]
    if detail == 0:
        parts.append(Polygon(ellipse(0, 0.2, body * 1.05, 0.1), "light"))
    if detail == 2:
        parts.append(Polygon(box(-body * 0.7, 0.0, body * 0.7, 0.12, 1), "accent"))
    if detail >= 3:
        parts.append(Polygon(box(-body, 0.36, body, 0.36 + body * 0.7, 1), "accent" if detail == 3 else "dark"))
    return Silhouette(parts, (0, 0.38, body * 0.62))


def wash(growth: float, detail: int) -> Silhouette:
    """Return a bottle of body wash with a knob (stage 0), a pump (1), a spout (2) or a cap (3 and 4).

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, high = interpolate(0.52, 0.34, growth), interpolate(0.42, 0.9, growth)
    parts = [Polygon(mirror((width * 0.5, -high), (width, -high + 0.18), (width * 1.04, high), (0.02, high)))]
    parts.append(Polygon(box(-0.12, -high - 0.26, 0.12, -high + 0.04, 1), "accent"))
    if detail <= 1:
        parts.append(Polygon(ellipse(0, -high - 0.3, 0.24 if detail else 0.16, 0.13), "light"))
    elif detail == 2:
        parts.append(Polygon(box(-0.4, -high - 0.38, 0.16, -high - 0.22, 1), "accent"))
    else:
        parts.append(Polygon(box(-0.2, -high - 0.36, 0.2, -high - 0.16, 1), "dark"))
    if detail in (1, 4):
        parts.append(Polygon(box(-width, high - 0.24, width, high - 0.1, 1), "light" if detail == 1 else "dark"))
    return Silhouette(parts, (0, 0.1, 0.26))


def backpack(growth: float, detail: int) -> Silhouette:
    """Return a backpack: ears at stages 0 and 1, a pocket from 2 on, more parts at 3 and 4.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, high = interpolate(0.58, 0.5, growth), interpolate(0.46, 0.9, growth)
    parts = [
        Polygon(box(side * width - 0.14, -high * 0.3, side * width + 0.14, high * 0.8, 1), "accent") for side in (-1, 1)
    ]
    parts += [Polygon(ellipse(0, -high, 0.2, 0.2), "dark"), Polygon(box(-width, -high, width, high))]
    if detail <= 1:
        parts += [Polygon(ellipse(side * width * 0.7, -high, 0.2, 0.2), "accent") for side in (-1, 1)]
    else:
        parts.append(Polygon(box(-width * 0.75, high * 0.2, width * 0.75, high * 0.85, 1), "accent"))
    if detail >= 3:
        parts.append(Polygon(box(-width * 0.75, -high * 0.62, width * 0.75, -high * 0.5, 1), "dark"))
    if detail == 4:
        parts.append(Polygon(box(-width * 0.4, high * 0.3, width * 0.4, high * 0.7, 1), "light"))
    return Silhouette(parts, (0, -high * 0.15, 0.26))
