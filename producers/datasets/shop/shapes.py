"""Polygons, and what the silhouettes are made of. Coordinates run from -1 to 1, y downwards."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """A polygon [k, 2] and what it is painted with: body (colour and pattern), accent (second colour), dark, light."""

    points: Points
    paint: str = "body"


@dataclass(frozen=True)
class Silhouette:
    """Parts, and where an emblem goes: centre and half its width."""

    parts: list[Part]
    emblem: tuple[float, float, float]


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """An ellipse as a polygon."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def box(left: float, top: float, right: float, bottom: float, rounds: int = 2) -> Points:
    """A box with round corners."""
    cut = 0.22 * min(right - left, bottom - top)
    corners = [(left + cut, top), (right - cut, top), (right, top + cut), (right, bottom - cut)]
    corners += [(right - cut, bottom), (left + cut, bottom), (left, bottom - cut), (left, top + cut)]
    return smooth(np.array(corners), rounds)


def smooth(points: Points, rounds: int = 2) -> Points:
    """Corners cut off twice over (Chaikin's algorithm)."""
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.8 * points + 0.2 * following, 0.2 * points + 0.8 * following], axis=1).reshape(-1, 2)
    return points


def mirrored(*right: tuple[float, float]) -> Points:
    """The right half of an outline from top to bottom, and its mirror image."""
    half = np.array(right)
    return smooth(np.concatenate([half, half[::-1] * [-1, 1]]))


def between(young: float, old: float, growth: float) -> float:
    """Linear in `growth`."""
    return young + (old - young) * growth
