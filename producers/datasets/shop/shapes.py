"""Polygons and silhouettes. Coordinates are from -1 to 1, y downwards."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Polygon:
    """A filled polygon of a drawing."""

    points: Points
    """[k, 2], the corners as x and y, in order; the last is joined to the first."""
    paint: str = "body"
    """One of "body" (the product's colour and pattern), "accent" (its second colour), "dark", "light" and "skin"."""


@dataclass(frozen=True)
class Silhouette:
    """The outline of a product or a child, from which an image is painted."""

    parts: list[Polygon]
    """In painting order: later ones cover earlier ones."""
    emblem: tuple[float, float, float]
    """Where an emblem is printed: x and y of its middle, and half its width."""


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Return an ellipse as a polygon [24, 2].

    Args:
        x: centre.
        y: centre, downwards.
        rx: half its width.
        ry: half its height.
    """
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def box(left: float, top: float, right: float, bottom: float, rounds: int = 2) -> Points:
    """Return a box with rounded corners as a polygon [8 * 2**rounds, 2].

    Args:
        left: smallest x.
        top: smallest y; y is downwards.
        right: largest x.
        bottom: largest y.
        rounds: how often corners are cut off; 0 leaves an octagon.
    """
    cut = 0.22 * min(right - left, bottom - top)
    corners = [(left + cut, top), (right - cut, top), (right, top + cut), (right, bottom - cut)]
    corners += [(right - cut, bottom), (left + cut, bottom), (left, bottom - cut), (left, top + cut)]
    return smooth(np.array(corners), rounds)


def smooth(points: Points, rounds: int = 2) -> Points:
    """Return the polygon with its corners cut off in each round (Chaikin's algorithm).

    A round keeps the middle three fifths of each edge.

    Args:
        points: [k, 2], the corners in order; they are not changed.
        rounds: number of rounds. Each doubles the number of corners; 0 returns `points` itself.
    """
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.8 * points + 0.2 * following, 0.2 * points + 0.8 * following], axis=1).reshape(-1, 2)
    return points


def mirror(*right: tuple[float, float]) -> Points:
    """Return a closed symmetric outline with smoothed corners, as a polygon [8 * points, 2].

    Args:
        *right: points (x, y) of the right half, from top to bottom. Each is repeated on the left as (-x, y).
    """
    half = np.array(right)
    return smooth(np.concatenate([half, half[::-1] * [-1, 1]]))


def interpolate(young: float, old: float, growth: float) -> float:
    """Return a number between two others, by linear interpolation.

    Args:
        young: the result for a growth of 0.
        old: the result for a growth of 1.
        growth: 0 to 1. Beyond these bounds the line is continued.
    """
    return young + (old - young) * growth
