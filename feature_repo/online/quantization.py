"""Floats in two bytes (float16) or one (int8 with one float32 scale per list).

float16 keeps 11 significant bits. int8 keeps round(x / scale) with scale = max |x| / 127 of the list.
tests/benchmarks/precision.py measures what each costs in cosine and in nearest neighbours.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError

_FLOAT16_BITS = np.uint32(0x8FFFE000).view(np.int32)
_FLOAT16_SCALE = np.float32(2.0**112)
_FLOAT16_BOUND = 65_536.0


def narrow_floats(values: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return floats as a float16 or float32 array of the same shape, rounded to nearest; NaN and infinities are kept.

    Args:
        values: floats of any shape, also empty; not changed.
        dtype: float16 or float32.
        name: the feature's name, for the error message.

    Raises:
        InvalidInputError: a finite value is too large for `dtype`, and would become infinite.
    """
    if dtype == np.float16 and values.dtype == np.float32:
        # Arrow's cast takes half the time of NumPy's.
        narrowed = pc.cast(pa.array(values.reshape(-1)), pa.float16()).to_numpy().reshape(values.shape)
    else:
        with np.errstate(over="ignore"):
            narrowed = values.astype(dtype)
    if np.abs(values).max(initial=0) <= np.finfo(dtype).max:
        return narrowed
    if (np.isinf(narrowed) & np.isfinite(values)).any():
        raise InvalidInputError(
            f"feature `{name}`: {np.abs(values[np.isfinite(values)]).max():g} exceeds {dtype.name}'s largest number "
            f"{np.finfo(dtype).max:g}; change the tag `storage` on its Field"
        )
    return narrowed


def quantize_int8(values: NDArray[Any], name: str) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return lists [n, width] as scales, float32 [n, 1], and elements, int8 [n, width].

    An element stands for element * scale of its list; elements are in [-127, 127], rounded to the nearest, halves to
    the even one. A list of zeros and an empty list have scale 0.

    Args:
        values: floats [n, width]; n and width may be 0.
        name: the feature's name, for the error message.

    Raises:
        InvalidInputError: an element is NaN, infinite, or beyond float32.
    """
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise InvalidInputError(
            f"feature `{name}`: int8 stores finite float32 numbers; change the tag `storage` on its Field"
        )
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    scales = (largest / 127).astype(np.float32)
    divisor = np.where(scales > 0, scales, np.float32(1))
    return scales, np.clip(np.rint(values / divisor), -127, 127).astype(np.int8)


def widen_float16(stored: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Write float16 values to a float32 array of the same shape, exactly; six times as fast as NumPy's cast.

    NaN and infinities are kept; if one occurs, the whole array is cast by NumPy.

    Args:
        stored: the values, of any shape.
        out: receives the values.
    """
    # The bits of each float16 are moved to their places in a float32. Its exponent is then too small by 112, because
    # float32 stores exponents with an offset of 127 and float16 with 15; multiplication by 2**112 corrects that, also
    # for numbers below float16's normal range. NaN and infinity would become finite numbers of at least 65,536, which
    # no finite float16 reaches.
    bits = out.view(np.int32)
    np.copyto(bits, stored.view(np.int16))  # extends the sign
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _FLOAT16_BITS, out=bits)
    np.multiply(out, _FLOAT16_SCALE, out=out)
    if out.size and (out.max() >= _FLOAT16_BOUND or out.min() <= -_FLOAT16_BOUND):
        np.copyto(out, stored)
