"""ICC profiles, built byte by byte, and the conversion of their colours by formula."""

import struct

import numpy as np
from numpy.typing import NDArray

SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
"""Columns: red, green and blue in XYZ, adapted to D50."""
SRGB_CURVE = "sRGB"
WHITE = (0.96420, 1.0, 0.82491)


def make_profile(matrix: np.ndarray | None, curve: str | float, *, space: bytes = b"RGB ", padding: int = 0) -> bytes:
    """Return a profile of version 4 with the curve of sRGB or a gamma; `matrix` is None for grey."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    if curve == SRGB_CURVE:
        numbers: tuple[float, ...] = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        body = struct.pack(">HH5i", 3, 0, *(round(number * 65536) for number in numbers))
    else:
        body = struct.pack(">HHi", 0, 0, round(float(curve) * 65536))
    tone = b"para\0\0\0\0" + body
    tags = {b"wtpt": xyz(WHITE)}
    if matrix is None:
        tags[b"kTRC"] = tone
    else:
        for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
            tags |= {name + b"XYZ": xyz(tuple(column)), name + b"TRC": tone}
    if padding:
        tags[b"priv"] = b"data\0\0\0\0" + np.random.default_rng(0).bytes(padding // 4 * 4)
    table, bodies, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", offset + len(bodies), len(content))
        bodies += content
    size = offset + len(bodies)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"\0" * 4, 0x04000000, b"mntr", space, b"XYZ ", b"\0" * 12, b"acsp")
    header += b"\0" * 28 + struct.pack(">3i", *(round(value * 65536) for value in WHITE))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def convert_to_srgb(pixels: NDArray[np.uint8], matrix: np.ndarray, curve: str | float) -> NDArray[np.uint8]:
    """Return RGB pixels [..., 3] of a profile in sRGB, by formula; what is out of gamut is cut."""
    encoded = pixels / 255.0
    if curve == SRGB_CURVE:
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    else:
        linear = encoded ** float(curve)
    linear = np.clip(linear @ (np.linalg.inv(SRGB) @ matrix).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded * 255).round().astype(np.uint8)
