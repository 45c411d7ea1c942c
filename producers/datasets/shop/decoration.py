"""Colours, patterns, emblems and backgrounds. Images are square and CANVAS pixels wide."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from producers.datasets.shop.shapes import Points, ellipse, smooth

CANVAS = 192
"""Images are painted at this size and reduced at the end, which smooths the edges."""
Colour = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (246, 158, 186), (214, 58, 62), (246, 148, 62), (250, 208, 82), (124, 182, 104), (120, 190, 236), (46, 66, 124),
    (166, 126, 204), (156, 108, 74), (172, 176, 182),
)  # fmt: skip
"""In the order of vocabulary.COLOURS."""
INK: Colour = (62, 54, 60)
CREAM: Colour = (255, 250, 240)
SKIN: Colour = (247, 208, 178)
BACKGROUNDS: tuple[Colour, ...] = (
    (255, 255, 255), (255, 255, 255), (248, 246, 242), (253, 240, 236), (236, 246, 250), (243, 248, 234),
    (250, 244, 224),
)  # fmt: skip


def mix_colours(first: Colour, second: Colour, share: float) -> Colour:
    """Return the first colour with a share of the second mixed in, rounded to whole values.

    Args:
        first: red, green and blue, 0 to 255; the result for a share of 0.
        second: red, green and blue, 0 to 255; the result for a share of 1.
        share: 0 to 1.
    """
    r, g, b = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return (r, g, b)


def contrast_colour(colour: Colour) -> Colour:
    """Return a colour for a pattern on `colour`: nearly white on a dark colour, a deep shade of a light colour.

    Light is a colour with a luma (0.3 red + 0.59 green + 0.11 blue) above 168; the values are 0 to 255.
    """
    light = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 168
    return mix_colours(colour, INK, 0.55) if light else mix_colours(colour, CREAM, 0.86)


PITCH = {"plain": 1, "stripes": 28, "dots": 19, "checks": 36, "stars": 42, "hearts": 30, "flowers": 36, "zigzag": 26}
"""The number of pixels after which a pattern repeats."""


@lru_cache(maxsize=len(PITCH))
def draw_pattern(name: str) -> Image.Image:
    """Return the mask of a pattern: one byte a pixel, 255 where it is printed and 0 elsewhere.

    The mask is square, CANVAS + PITCH[name] pixels wide, so that any part of CANVAS pixels can be cut out. The mask of
    "plain" is all 0. Calls with the same name return the same image, so it must not be changed.

    Args:
        name: the name of a level of vocabulary.PATTERNS.

    Raises:
        KeyError: there is no such pattern.
    """
    pitch = PITCH[name]
    size = CANVAS + pitch
    mask = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(mask)
    if name == "stripes":
        for y in range(0, size, pitch):
            draw.rectangle((0, y, size, y + pitch * 0.42), fill=255)
    elif name == "checks":
        for at in range(0, size, pitch):
            draw.rectangle((at, 0, at + pitch * 0.3, size), fill=255)
            draw.rectangle((0, at, size, at + pitch * 0.3), fill=255)
    elif name == "zigzag":
        for y in range(-pitch, size + pitch, pitch):
            line = [
                (x, y + (pitch * 0.5 if i % 2 else 0)) for i, x in enumerate(range(-pitch, size + pitch, pitch // 2))
            ]
            draw.line(line, fill=255, width=round(pitch * 0.26), joint="curve")
    elif name != "plain":
        for row in range(size // pitch + 2):
            for x in range(row % 2 * pitch // 2 - pitch, size + pitch, pitch):
                for points, ink in _list_print_shapes(name, pitch * 0.38):
                    draw.polygon([(x + px, row * pitch + py) for px, py in points], fill=ink)
    return mask


def _list_print_shapes(name: str, size: float) -> list[tuple[Points, int]]:
    """Return the shapes of one repeat around the origin, with their mask value: 255 printed, 0 blank."""
    if name == "dots":
        return [(ellipse(0, 0, size * 0.75, size * 0.75), 255)]
    if name == "stars":
        return [(star(0, 0, size * 1.2), 255)]
    if name == "hearts":
        return [(heart(0, 0, size * 1.1), 255)]
    turns = np.arange(5) * 2 * np.pi / 5  # flowers
    petals = [ellipse(0.62 * size * np.cos(t), 0.62 * size * np.sin(t), size * 0.45, size * 0.45) for t in turns]
    return [*((petal, 255) for petal in petals), (ellipse(0, 0, size * 0.34, size * 0.34), 0)]


def star(x: float, y: float, size: float) -> Points:
    """Return a star with five points, one of them upwards, as a polygon [10, 2].

    Args:
        x: centre.
        y: centre, downwards.
        size: distance of the points from the centre.
    """
    turn = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, size, size * 0.42)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


def heart(x: float, y: float, size: float) -> Points:
    """Return a heart as a polygon [24, 2].

    Args:
        x: middle of its width.
        y: near the middle of its height, downwards.
        size: half its width.
    """
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wide = 16 * np.sin(t) ** 3
    high = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x + size * wide / 16, y + size * high / 16], axis=1)


def list_emblem_shapes(name: str) -> list[tuple[Points, Colour]]:
    """Return the polygons of an emblem and their colours, in painting order.

    Coordinates are about -1 to 1, y downwards.

    Args:
        name: "bear", "rabbit", "dinosaur" or "car"; any other name gives the whale.
    """
    if name == "bear":
        fur = (150, 98, 62)
        shapes = [(ellipse(side * 0.66, -0.6, 0.34, 0.34), fur) for side in (-1, 1)]
        shapes += [(ellipse(0, 0.1, 0.92, 0.84), fur), (ellipse(0, 0.42, 0.42, 0.32), CREAM)]
        return shapes + [(ellipse(x, y, 0.12, 0.13), INK) for x, y in ((-0.36, -0.05), (0.36, -0.05), (0, 0.3))]
    if name == "rabbit":
        shapes = [(ellipse(side * 0.36, -0.7, 0.22, 0.56), (255, 246, 248)) for side in (-1, 1)]
        shapes += [(ellipse(side * 0.36, -0.7, 0.1, 0.4), (244, 150, 178)) for side in (-1, 1)]
        shapes += [(ellipse(0, 0.34, 0.76, 0.62), (255, 246, 248))]
        shapes += [(ellipse(side * 0.3, 0.26, 0.1, 0.12), INK) for side in (-1, 1)]
        return [*shapes, (ellipse(0, 0.5, 0.12, 0.09), (244, 120, 156))]
    if name == "dinosaur":
        skin = (64, 150, 92)
        back = [(-1.0, 0.55), (-0.55, 0.1), (-0.2, -0.15), (0.2, -0.75), (0.75, -0.85), (1.0, -0.5), (0.55, -0.3),
                (0.5, 0.3), (0.35, 0.9), (0.05, 0.9), (-0.1, 0.6), (-0.4, 0.9), (-0.6, 0.6)]  # fmt: skip
        spikes = [np.array([(x - 0.16, y + 0.1), (x + 0.16, y - 0.12), (x - 0.16, y - 0.3)])
                  for x, y in ((-0.5, 0.05), (-0.22, -0.2), (-0.02, -0.5))]  # fmt: skip
        return [
            *((s, (250, 208, 82)) for s in spikes),
            (smooth(np.array(back)), skin),
            (ellipse(0.62, -0.62, 0.1, 0.1), CREAM),
        ]
    if name == "car":
        body = smooth(
            np.array(
                [
                    (-1.0, 0.4),
                    (-1.0, 0.0),
                    (-0.55, -0.1),
                    (-0.35, -0.55),
                    (0.4, -0.55),
                    (0.6, -0.05),
                    (1.0, 0.05),
                    (1.0, 0.4),
                ]
            ),
            1,
        )
        window = np.array([(-0.35, -0.08), (-0.22, -0.4), (0.28, -0.4), (0.4, -0.08)])
        wheels = [(ellipse(x, 0.44, 0.25, 0.25), INK) for x in (-0.52, 0.52)]
        hubs = [(ellipse(x, 0.44, 0.1, 0.1), CREAM) for x in (-0.52, 0.52)]
        return [(body, (220, 62, 58)), (window, (208, 236, 250)), *wheels, *hubs]
    body = smooth(
        np.array(
            [
                (-0.95, 0.1),
                (-0.7, -0.45),
                (0.1, -0.5),
                (0.6, -0.1),
                (0.75, -0.6),
                (1.0, -0.5),
                (0.9, 0.1),
                (0.5, 0.6),
                (-0.5, 0.65),
            ]
        )
    )
    belly = smooth(np.array([(-0.9, 0.2), (0.2, 0.3), (0.45, 0.56), (-0.5, 0.62)]), 1)
    return [(body, (60, 118, 190)), (belly, CREAM), (ellipse(-0.5, 0.0, 0.09, 0.1), CREAM)]  # a whale


def draw_background(seller: int, rng: np.random.Generator) -> Image.Image:
    """Return a seller's background, CANVAS pixels square, RGB: one tint, with a table, or with a disc.

    Args:
        seller: number of the seller, from 0; it alone decides the tint and the kind.
        rng: draws the radius of a disc; not used for other kinds.
    """
    tint = BACKGROUNDS[seller % len(BACKGROUNDS)]
    image = Image.new("RGB", (CANVAS, CANVAS), tint)
    draw = ImageDraw.Draw(image)
    kind = seller % 5
    if kind == 3:
        draw.rectangle((0, CANVAS * 0.76, CANVAS, CANVAS), fill=mix_colours(tint, (196, 164, 128), 0.4))
    elif kind == 4:
        r = CANVAS * (0.42 + 0.04 * float(rng.random()))
        middle = CANVAS / 2
        draw.ellipse((middle - r, middle - r, middle + r, middle + r), fill=mix_colours(tint, (206, 196, 188), 0.3))
    return image
