"""Pictures from sentences: denoise seeded noise under classifier-free guidance (Ho and Salimans, arXiv 2207.12598)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from feature_repo.errors import CorruptDataError, InvalidInputError
from producers.text_to_image.sentences import check_sentences, encode_sentences

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

MAX_PICTURES = 64
"""Pictures of one call."""
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_SIDE = 1024
"""Height and width in pixels."""
MAX_SEED = 2**63 - 1
DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 4.0


class GenerationStoppedError(Exception):
    """The caller asked to stop before the pictures were complete."""


def generate_images(
    pipeline: "StableDiffusionPipeline",
    sentences: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = DEFAULT_STEPS,
    guidance: float = DEFAULT_GUIDANCE,
    height: int | None = None,
    width: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Image.Image]:
    """Return one picture for each sentence, RGB of `width` x `height` pixels.

    A picture depends on its sentence, its seed and the settings, not on the others of the call: batches of other sizes
    round differently, by a few of 255 grey levels at most.

    Args:
        pipeline: from `checkpoint.open_pipeline`. One call at a time may use it.
        sentences: n sentences, 1 to MAX_PICTURES. One that is longer than the tokenizer's length is cut; see
            `sentences.tokenize_sentences`.
        seeds: n seeds, 0 to MAX_SEED. The initial noise is drawn on the CPU, so it is the same on a GPU.
        steps: denoising steps, 1 to MAX_STEPS.
        guidance: 1 takes the sentence's prediction alone; a larger scale, to MAX_GUIDANCE, follows the sentence more
            and varies less.
        height: pixels, a multiple of `size_multiple`, to MAX_SIDE; None takes the size that the model was trained on.
        width: the same.
        on_step: called after each step with the steps done and their total.
        should_stop: asked after each step whether to give up.

    Raises:
        InvalidInputError: an argument is out of its bounds.
        CorruptDataError: a picture has numbers that are not finite.
        GenerationStoppedError: `should_stop` returned True.
    """
    height, width = (default_side(pipeline) if side is None else side for side in (height, width))
    check_settings(pipeline, len(sentences), seeds=seeds, steps=steps, guidance=guidance, height=height, width=width)
    check_sentences(sentences)

    def end_step(pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if on_step is not None:
            on_step(step + 1, steps)
        if should_stop is not None and should_stop():
            raise GenerationStoppedError(f"stopped after {step + 1} of {steps} steps, as requested")
        return tensors

    with torch.inference_mode():
        # Encoded here, because the pipeline itself would print every sentence that it cuts.
        states = encode_sentences(pipeline, sentences)
        unconditional = encode_sentences(pipeline, [""]).expand_as(states) if guidance > 1 else None
        result = pipeline(
            prompt_embeds=states,
            negative_prompt_embeds=unconditional,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            callback_on_step_end=end_step,
            output_type="np",
        )
    if not np.isfinite(result.images).all():
        raise CorruptDataError(
            "the model's pictures are not finite numbers; its weights are damaged, or the guidance is too large"
        )
    images: list[Image.Image] = pipeline.image_processor.numpy_to_pil(result.images)
    return images


def check_settings(
    pipeline: "StableDiffusionPipeline",
    pictures: int,
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    height: int,
    width: int,
) -> None:
    """Check the arguments of `generate_images`.

    Raises:
        InvalidInputError: one is out of its bounds.
    """
    if not 1 <= pictures <= MAX_PICTURES:
        raise InvalidInputError(f"{pictures} pictures were asked for; expected 1 to {MAX_PICTURES} in one call")
    if len(seeds) != pictures:
        raise InvalidInputError(f"{len(seeds)} seeds were given for {pictures} pictures; expected one for each")
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise InvalidInputError(f"the seed is {seed}; expected 0 to {MAX_SEED}")
    if not 1 <= steps <= MAX_STEPS:
        raise InvalidInputError(f"{steps} steps were asked for; expected 1 to {MAX_STEPS}")
    if not 1 <= guidance <= MAX_GUIDANCE:
        raise InvalidInputError(f"the guidance is {guidance}; expected 1 to {MAX_GUIDANCE:g}")
    multiple = size_multiple(pipeline)
    for name, side in (("height", height), ("width", width)):
        if not multiple <= side <= MAX_SIDE or side % multiple:
            raise InvalidInputError(
                f"the {name} is {side} pixels; expected a multiple of {multiple} from {multiple} to {MAX_SIDE}"
            )


def default_side(pipeline: "StableDiffusionPipeline") -> int:
    """Return height and width of the pictures that the model was trained on, in pixels."""
    return int(pipeline.unet.config.sample_size) * int(pipeline.vae_scale_factor)


def size_multiple(pipeline: "StableDiffusionPipeline") -> int:
    """Return the number of pixels that height and width must be a multiple of: one cell of the UNet's smallest grid.

    The pipeline itself demands a multiple of 8.
    """
    levels = len(pipeline.unet.config.block_out_channels)
    return max(8, int(pipeline.vae_scale_factor) * 2 ** (levels - 1))
