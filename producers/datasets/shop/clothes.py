"""Silhouettes of what is worn. Coordinates are about -1 to 1, y downwards; silhouettes.py scales them.

Stages are indices into CHILD_AGES: 0 for newborns to 4 for schoolchildren.
"""

import numpy as np

from producers.datasets.shop.shapes import Polygon, Silhouette, box, ellipse, interpolate, mirror, smooth


def romper(growth: float, detail: int) -> Silhouette:
    """Return a romper: legs grow with age; stage 0 has feet and mitts, and each stage its own fastening.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, leg = interpolate(0.46, 0.36, growth), interpolate(0.22, 0.95, growth)
    arm = interpolate(0.24, 0.34, growth)
    body = mirror(
        (0.12, -0.8), (0.4, -0.76), (0.5 + arm, -0.36), (0.36 + arm, -0.2), (width, -0.42), (width + 0.04, 0.25),
        (width, 0.3 + leg), (0.1, 0.3 + leg), (0.02, 0.42),
    )  # fmt: skip
    parts = [Polygon(body), Polygon(ellipse(0, -0.78, 0.17, 0.08), "dark")]
    if detail == 0:
        parts += [Polygon(ellipse(side * 0.26, 0.34 + leg, 0.22, 0.12), "accent") for side in (-1, 1)]
        parts += [Polygon(ellipse(side * (0.46 + arm), -0.25, 0.12, 0.1), "accent") for side in (-1, 1)]
    return Silhouette(parts + _fastening(detail, -0.66, -0.3), (0, 0.08, 0.27))


def top(growth: float, detail: int) -> Silhouette:
    """Return a top: sleeves and body grow with age; stage 4 has a hood, and each stage its own fastening.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, length, arm = (
        interpolate(0.52, 0.42, growth),
        interpolate(0.2, 0.72, growth),
        interpolate(0.25, 0.42, growth),
    )
    body = mirror(
        (0.13, -0.72), (0.44, -0.66), (0.56 + arm, -0.4 + arm * 0.7), (0.4 + arm, -0.22 + arm * 0.7), (width, -0.32),
        (width, length), (0.02, length),
    )  # fmt: skip
    neck = [Polygon(ellipse(0, -0.7, 0.18, 0.09), "dark")]
    if detail == 4:
        neck = [Polygon(ellipse(0, -0.76, 0.28, 0.2), "accent"), Polygon(ellipse(0, -0.74, 0.16, 0.13), "dark")]
    return Silhouette([Polygon(body), *neck, *_fastening(detail, -0.58, -0.28)], (0, 0.08, 0.26))


def trousers(growth: float, detail: int) -> Silhouette:
    """Return trousers: legs grow with age; with feet (stage 0), cuffs (1 and 2), knee patches (3) or pockets (4).

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, leg = interpolate(0.56, 0.42, growth), interpolate(0.18, 1.1, growth)
    body = mirror((width - 0.1, -0.6), (width + 0.02, -0.1), (width, 0.1 + leg), (0.12, 0.1 + leg), (0.02, 0.06))
    parts = [Polygon(body), Polygon(box(-width + 0.04, -0.68, width - 0.04, -0.5, 1), "accent")]
    if detail == 0:
        parts += [Polygon(ellipse(side * width * 0.6, 0.14 + leg, 0.24, 0.13), "accent") for side in (-1, 1)]
    elif detail in (1, 2):
        parts += [Polygon(box(side * width * 0.6 - 0.2, 0.02 + leg, side * width * 0.6 + 0.2, 0.14 + leg, 1), "accent")
                  for side in (-1, 1)]  # fmt: skip
    elif detail == 3:
        parts += [Polygon(ellipse(side * width * 0.58, 0.2 + leg / 2, 0.13, 0.13), "light") for side in (-1, 1)]
    else:
        parts += [Polygon(box(side * width * 0.66 - 0.12, leg / 2 - 0.05, side * width * 0.66 + 0.12, leg / 2 + 0.2, 1),
                       "dark") for side in (-1, 1)]  # fmt: skip
    return Silhouette(parts, (0, -0.22, 0.22))


def dress(growth: float, detail: int) -> Silhouette:
    """Return a dress: longer and narrower with age; puffed sleeves at stages 0 and 1, a border at 3 and 4.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    waist, length, hem = interpolate(0.36, 0.27, growth), interpolate(0.3, 1.0, growth), interpolate(0.78, 0.6, growth)
    body = mirror(
        (0.14, -0.7), (0.34, -0.72), (0.46, -0.42), (waist, -0.36), (waist, -0.1), (hem, length), (0.02, length + 0.06)
    )
    parts = [Polygon(body), Polygon(box(-waist - 0.02, -0.16, waist + 0.02, -0.02, 1), "accent")]
    if detail <= 1:
        parts += [Polygon(ellipse(side * 0.46, -0.56, 0.18, 0.16), "accent") for side in (-1, 1)]
    if detail >= 3:
        layer = np.array([(-hem, length), (hem, length), (hem * 0.93, length - 0.16), (-hem * 0.93, length - 0.16)])
        parts.append(Polygon(layer, "light" if detail == 3 else "dark"))
    return Silhouette(parts, (0, (length - 0.1) / 2, 0.24))


def shoes(growth: float, detail: int) -> Silhouette:
    """Return a shoe: a bootie (stage 0), a strap (1), then a pale sole with as many laces as the stage (2 to 4).

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    long, sole = interpolate(0.62, 1.0, growth), interpolate(0.03, 0.2, growth)
    upper = smooth(np.array([(-long, -0.55), (-long * 0.3, -0.6), (-0.05, -0.1), (long * 0.7, 0.0), (long, 0.28),
                             (long, 0.42), (-long, 0.42)]))  # fmt: skip
    parts = [
        Polygon(upper),
        Polygon(box(-long - 0.03, 0.36, long + 0.05, 0.4 + sole, 1), "light" if detail >= 2 else "accent"),
    ]
    if detail == 0:
        parts.append(Polygon(ellipse(-long * 0.65, -0.56, 0.4, 0.12), "light"))
    elif detail == 1:
        parts.append(Polygon(box(-long * 0.5, -0.3, 0.15, -0.12, 1), "accent"))
    else:
        where = zip(np.linspace(-0.22, 0.25, detail), np.linspace(-0.3, 0.0, detail), strict=True)
        parts += [Polygon(box(x - 0.04, y - 0.1, x + 0.12, y, 1), "light") for x, y in where]
    return Silhouette(parts, (-long * 0.55, 0.02, 0.25))


def hat(growth: float, detail: int) -> Silhouette:
    """Return a hat: a bonnet, ears, a bobble, a brim or a peak at stages 0 to 4.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    high = interpolate(0.6, 0.85, growth)
    crown = smooth(
        np.array(
            [(-0.6, 0.3), (-0.58, -0.2), (-0.3, 0.3 - high * 1.2), (0.3, 0.3 - high * 1.2), (0.58, -0.2), (0.6, 0.3)]
        )
    )
    parts = [Polygon(crown)]
    if detail == 0:
        parts += [Polygon(ellipse(side * 0.6, 0.45, 0.15, 0.28), "accent") for side in (-1, 1)]
    elif detail == 1:
        parts += [Polygon(ellipse(side * 0.46, 0.2 - high * 1.1, 0.2, 0.2), "accent") for side in (-1, 1)]
    elif detail == 2:
        parts += [Polygon(ellipse(0, 0.25 - high * 1.25, 0.2, 0.2), "light")]
    elif detail == 3:
        parts += [Polygon(ellipse(0, 0.32, 0.95, 0.14), "accent")]
    else:
        parts += [Polygon(smooth(np.array([(0.3, 0.12), (1.05, 0.3), (1.1, 0.42), (0.3, 0.36)])), "accent")]
    return Silhouette([*parts, Polygon(box(-0.62, 0.18, 0.62, 0.36, 1), "accent")], (0, -0.1, 0.26))


def diaper(growth: float, detail: int) -> Silhouette:
    """Return a diaper: tapes at stages 0 and 1, a waistband from 2 on, a seam from 3 on.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    width, high = interpolate(0.62, 0.7, growth), interpolate(0.42, 0.75, growth)
    body = mirror((width + 0.1, -high), (width + 0.14, -high * 0.3), (0.34, high * 0.75), (0.26, high), (0.02, high))
    parts = [Polygon(body), Polygon(box(-width - 0.06, -high - 0.06, width + 0.06, -high + 0.12, 1), "light")]
    if detail == 0:
        parts.append(Polygon(ellipse(0, -high, 0.16, 0.14), "dark"))
    if detail <= 1:
        parts += [
            Polygon(box(side * width - 0.14, -high + 0.1, side * width + 0.14, -high + 0.26, 1), "accent")
            for side in (-1, 1)
        ]
    if detail >= 2:
        parts.append(Polygon(box(-width - 0.06, -high + 0.12, width + 0.06, -high + 0.2, 1), "accent"))
    if detail >= 3:
        parts.append(Polygon(box(-0.03, -high + 0.2, 0.03, high - 0.05, 1), "dark"))
    return Silhouette(parts, (0, -0.05, 0.24))


def sleepsack(growth: float, detail: int) -> Silhouette:
    """Return a sleep sack: a hood at stage 0, sleeves from 2 on, legs from 3 on.

    Args:
        growth: the age that it is cut for, from 0 (newborn) to 1 (schoolchild).
        detail: the age stage whose typical parts it shows, an index into CHILD_AGES: 0 to 4.
    """
    hem, length = interpolate(0.66, 0.56, growth), interpolate(0.35, 1.1, growth)
    body = mirror(
        (0.15, -0.7),
        (0.36, -0.7),
        (0.4, -0.4),
        (hem, 0.1),
        (hem, length),
        (hem * 0.6, length + 0.12),
        (0.02, length + 0.14),
    )
    parts = [Polygon(body), Polygon(ellipse(0, -0.68, 0.19, 0.1), "dark")]
    if detail == 0:
        parts.insert(0, Polygon(ellipse(0, -0.72, 0.4, 0.34), "accent"))
    elif detail >= 2:
        parts = [Polygon(ellipse(side * 0.56, -0.36, 0.26, 0.15), "accent") for side in (-1, 1)] + parts
    if detail >= 3:
        parts.append(
            Polygon(
                np.array(
                    [(-0.02, length - 0.25), (0.02, length - 0.25), (0.06, length + 0.14), (-0.06, length + 0.14)]
                ),
                "dark",
            )
        )
    else:
        parts.append(
            Polygon(np.array([(-0.03, -0.55), (0.03, -0.55), (0.03, length * 0.7), (-0.03, length * 0.7)]), "light")
        )
    return Silhouette(parts, (0, 0.12, 0.26))


def _fastening(detail: int, top: float, bottom: float) -> list[Polygon]:
    """Return the fastening of a stage: a tie, a bib, buttons, a pocket or a zip."""
    if detail == 0:
        return [Polygon(np.array([(-0.3, top), (-0.2, top), (0.28, bottom), (0.18, bottom)]), "light")]
    if detail == 1:
        return [Polygon(ellipse(0, top + 0.06, 0.26, 0.16), "light")]
    if detail == 2:
        return [Polygon(ellipse(0, y, 0.05, 0.05), "light") for y in np.linspace(top + 0.08, bottom, 3)]
    if detail == 3:
        return [Polygon(box(0.08, top + 0.12, 0.3, top + 0.34, 1), "light")]
    return [Polygon(np.array([(-0.03, top), (0.03, top), (0.03, bottom + 0.2), (-0.03, bottom + 0.2)]), "dark")]
