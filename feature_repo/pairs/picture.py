"""A description of a picture in 176 numbers: the edges and the mean colours of each of its parts.

Encoders that are trained on titles keep what titles say. Two photographs of one striped shirt also have the same
stripes, which a small encoder loses and gradients keep.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError
from feature_repo.location import BucketObject

Floats = NDArray[np.float32]

SIDE = 64
"""Height and width in pixels to which a picture is scaled."""
CELLS = 4
"""Cells along a side."""
ORIENTATIONS = 8
"""Bins of the angle of an edge, over half a turn."""
EDGES = CELLS * CELLS * ORIENTATIONS
"""Numbers that describe the edges; they come first."""
WIDTH = EDGES + CELLS * CELLS * 3
"""Numbers of a description: edges, then colours."""


def describe_picture(source: Path | BucketObject | bytes) -> Floats | None:
    """Return float32 [WIDTH]: square roots of the edge strengths by cell and angle, of length 1, then mean colours.

    The edges are histograms of oriented gradients (Dalal and Triggs, 2005) over CELLS x CELLS cells; the colours are
    red, green and blue of each cell, from 0 to 1. None for a picture that cannot be decoded.
    """
    from PIL import Image

    from feature_repo.images.decoding import open_image

    try:
        image = open_image(source, side=SIDE)
    except InvalidInputError:
        return None
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) / 255
    dy, dx = np.gradient(pixels.mean(axis=2))
    angle = np.minimum((np.arctan2(dy, dx) % np.pi) / np.pi * ORIENTATIONS, ORIENTATIONS - 1).astype(np.int64)
    cell = np.arange(SIDE) * CELLS // SIDE
    bins = (cell[:, None] * CELLS + cell) * ORIENTATIONS + angle
    edges = np.sqrt(np.bincount(bins.ravel(), np.hypot(dy, dx).ravel(), EDGES))
    part = SIDE // CELLS
    colours = pixels.reshape(CELLS, part, CELLS, part, 3).mean(axis=(1, 3)).ravel()
    return np.concatenate([edges / max(float(np.linalg.norm(edges)), 1e-9), colours]).astype(np.float32)
