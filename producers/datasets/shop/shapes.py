"""Polygons and silhouettes. Coordinates are from -1 to 1, y downwards."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Polygon:
    """A polygon [k, 2] and its paint: body (colour and pattern), accent (second colour), dark, light or skin."""

    points: Points
    paint: str = "body"


@dataclass(frozen=True)
class Silhouette:
    """Parts in painting order, and the place of an emblem: x, y and half its width."""

    parts: list[Polygon]
    emblem: tuple[float, float, float]


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Return an ellipse as a polygon."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def box(left: float, top: float, right: float, bottom: float, rounds: int = 2) -> Points:
    """Return a box with rounded corners."""
    cut = 0.22 * min(right - left, bottom - top)
    corners = [(left + cut, top), (right - cut, top), (right, top + cut), (right, bottom - cut)]
    corners += [(right - cut, bottom), (left + cut, bottom), (left, bottom - cut), (left, top + cut)]
    return smooth(np.array(corners), rounds)


def smooth(points: Points, rounds: int = 2) -> Points:
    """Return the polygon with its corners cut off in each round (Chaikin's algorithm)."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.8 * points + 0.2 * following, 0.2 * points + 0.8 * following], axis=1).reshape(-1, 2)
    return points


def mirror(*right: tuple[float, float]) -> Points:
    """Return a closed outline from its right half, given from top to bottom."""
    half = np.array(right)
    return smooth(np.concatenate([half, half[::-1] * [-1, 1]]))


def interpolate(young: float, old: float, growth: float) -> float:
    """Return the value at `growth` (0 to 1), interpolated between young and old."""
    return young + (old - young) * growth
