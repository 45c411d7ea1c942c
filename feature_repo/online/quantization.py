"""Floats in fewer bytes: float16, and int8 with a scale per list.

float16 keeps 11 significant bits; int8 keeps list / scale rounded to whole numbers, scale = max |x| / 127. What each
costs in cosine and in neighbours is measured by tests/benchmarks/precision.py.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.errors import VitrineError

_FLOAT16_BITS = np.uint32(0x8FFFE000).view(np.int32)
_FLOAT16_SCALE = np.float32(2.0**112)
_FLOAT16_BOUND = 65_536.0


def narrow_floats(values: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Floats as float16 or float32, rounded to nearest; NaN and infinities stay.

    Raises:
        VitrineError: a finite value is beyond what `dtype` holds; `name` is the feature's.
    """
    if dtype == np.float16 and values.dtype == np.float32:
        # Arrow casts in half of NumPy's time.
        narrowed = pc.cast(pa.array(values.reshape(-1)), pa.float16()).to_numpy().reshape(values.shape)
    else:
        with np.errstate(over="ignore"):
            narrowed = values.astype(dtype)
    if np.abs(values).max(initial=0) <= np.finfo(dtype).max:
        return narrowed
    if (np.isinf(narrowed) & np.isfinite(values)).any():
        raise VitrineError(
            f"feature `{name}`: {np.abs(values[np.isfinite(values)]).max():g} is beyond {dtype.name}'s largest number "
            f"{np.finfo(dtype).max:g}; change the tag `storage` on its Field"
        )
    return narrowed


def quantize_int8(values: NDArray[Any], name: str) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Lists [n, width] as scales [n, 1] and int8 elements [n, width]; a list of zeros has scale 0.

    Raises:
        VitrineError: an element is no finite number; `name` is the feature's.
    """
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise VitrineError(
            f"feature `{name}`: int8 holds finite numbers of float32's range only; change its tag `storage`"
        )
    largest = np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    scales = (largest / 127).astype(np.float32)
    divisor = np.where(scales > 0, scales, np.float32(1))
    return scales, np.clip(np.rint(values / divisor), -127, 127).astype(np.int8)


def widen_float16(stored: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """float16 to float32, exactly; six times as fast as NumPy's own cast.

    The bits are moved to their places in a float32, whose exponent is then 112 too small: for float16 and float32
    alike, a power of two mends that, subnormal numbers included. Infinity and NaN would come out as finite numbers
    of at least 65,536, which no other float16 reaches: then NumPy casts.
    """
    bits = out.view(np.int32)
    np.copyto(bits, stored.view(np.int16))  # extends the sign
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _FLOAT16_BITS, out=bits)
    np.multiply(out, _FLOAT16_SCALE, out=out)
    if out.size and (out.max() >= _FLOAT16_BOUND or out.min() <= -_FLOAT16_BOUND):
        np.copyto(out, stored)
