"""Seconds per stage of an encoding."""

from typing import NamedTuple


class StageSeconds(NamedTuple):
    """Seconds per stage of an encoding. The stages overlap, so their sum may exceed the elapsed time."""

    read: float = 0.0
    """Waiting for catalogue rows."""
    decode: float = 0.0
    """In decoding processes, summed over all of them."""
    wait: float = 0.0
    """Waiting for decoded images. If it is long, decoding limits the run."""
    encode: float = 0.0
    """In the model. Time in which several batches are encoded at once counts once."""
    write: float = 0.0
    """Committing rows; set by the caller that writes them."""

    def __add__(self, other: "StageSeconds") -> "StageSeconds":  # type: ignore[override]  # sums, does not join
        return StageSeconds(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def __str__(self) -> str:
        read, decode, wait, encode, write = (f"{stage:.1f} s" for stage in self)
        return f"read {read}, decode {decode} in workers ({wait} waited for), encode {encode}, write {write}"


ZERO_SECONDS = StageSeconds()
