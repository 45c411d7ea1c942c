"""A Stable Diffusion checkpoint as a model for the queue of the studio."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from producers.encoders.training.process_group import select_device
from producers.text_to_image.checkpoint import compute_model_version, open_pipeline
from producers.text_to_image.generate import GenerationStoppedError, default_side, generate_images, size_multiple
from producers.text_to_image.sentences import tokenize_sentences


class StableDiffusionModel:
    """Generates pictures by a checkpoint, on the first GPU if there is one. One thread may use it at a time.

    Args:
        folder: a folder in the form of diffusers.

    Raises:
        VitrineError: as `open_pipeline`.
    """

    def __init__(self, folder: Path) -> None:
        self._pipeline = open_pipeline(folder, device=select_device())
        self.name = compute_model_version(self._pipeline)
        self.height = self.width = default_side(self._pipeline)
        self.side_unit = size_multiple(self._pipeline)

    def is_cut(self, sentence: str) -> bool:
        """Return whether the end of a sentence is cut, because the tokenizer's length ends before it."""
        return bool(tokenize_sentences(self._pipeline.tokenizer, [sentence]).cut)

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
        """Return a PIL image; None if it was stopped. See `PictureModel.generate`."""
        try:
            (image,) = generate_images(
                self._pipeline,
                [sentence],
                seeds=[seed],
                steps=steps,
                guidance=guidance,
                height=height,
                width=width,
                on_step=lambda done, total: on_step(done),
                should_stop=should_stop,
            )
        except GenerationStoppedError:
            return None
        return image
