"""What the queue of the studio asks of a text-to-image model; stable_diffusion.py is one."""

from collections.abc import Callable
from typing import Any, Protocol


class PictureModel(Protocol):
    """A text-to-image model."""

    name: str
    """Name of the checkpoint."""
    height: int
    """Height in pixels of the pictures that it was trained for."""
    width: int
    """Width in pixels of the pictures that it was trained for."""
    side_unit: int
    """Heights and widths must be multiples of this, in pixels."""

    def is_cut(self, sentence: str) -> bool:
        """Return whether the model reads the beginning of a sentence only."""

    def generate(
        self,
        sentence: str,
        *,
        seed: int,
        steps: int,
        guidance: float,
        height: int,
        width: int,
        on_step: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> Any:
        """Return a PIL image; None if it was stopped.

        Args:
            sentence: what it shall show.
            seed: of the noise.
            steps: of the sampler.
            guidance: classifier-free guidance scale.
            height: in pixels.
            width: in pixels.
            on_step: called with the number of finished steps after each one.
            should_stop: asked after each step; True ends the generation.
        """
