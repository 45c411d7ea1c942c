"""Open and save checkpoints of Stable Diffusion 1.x or 2.x, or of the same classes: folders in the form of diffusers.

    model_index.json   the class of each part
    tokenizer/         sentence -> token ids
    text_encoder/      token ids -> text states [length, width]
    unet/              noisy latents, time and text states -> predicted noise, or velocity (v-prediction)
    vae/               picture <-> latents
    scheduler/         the noise levels

Such a folder also opens with `diffusers.StableDiffusionPipeline.from_pretrained`.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError
from feature_repo.extras import require
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json
from producers.encoders.checkpoint_files import VOCABULARIES, explain_errors, explain_write_errors, read_model

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

INDEX_FILE = "model_index.json"
PIPELINE_CLASS = "StableDiffusionPipeline"
PARTS = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
OMITTED_PARTS = ("safety_checker", "feature_extractor")
"""Parts that Stable Diffusion names and that are not loaded."""
FROZEN_PARTS = ("unet", "vae")
"""Parts that the training of a text encoder leaves as they are."""
LIBRARIES = ("diffusers", "transformers")
"""Libraries whose classes a checkpoint may name; so may modules of `producers.text_to_image`. Opening a checkpoint
imports the modules that it names, so no others are accepted."""
PREDICTION_TYPES = ("epsilon", "v_prediction")
MAX_TOKENS = 512
"""Largest length that is accepted from a tokenizer. transformers gives 1e30 if a checkpoint does not state it."""


def open_pipeline(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> "StableDiffusionPipeline":
    """Open a checkpoint. Nothing is downloaded, and no safety checker is loaded.

    The tokenizer's `model_max_length` is set to the number of positions of the text encoder if the checkpoint states a
    larger one, or none.

    Args:
        folder: a folder in the form of diffusers, with the classes of Stable Diffusion 1.x or 2.x.
        device: where the models are put.
        dtype: of the models' weights.

    Returns:
        The pipeline, in evaluation mode and without a progress bar of its own.

    Raises:
        NotFoundError: the folder, or a part in it, does not exist.
        InvalidInputError: the checkpoint is of another class, predicts something else than noise or velocity, or the
            width of the text states is not that of the UNet's cross-attention.
        CorruptDataError: a part cannot be read, lacks weights, or has some that are not finite. Weights must be
            safetensors: pickles are not read.
    """
    require("picture", "diffusers", "accelerate")
    library, class_name = _check_index(folder)["text_encoder"]
    with explain_errors(folder, "checkpoint"), _silence_diffusers():
        from diffusers import StableDiffusionPipeline  # warns of other libraries at import

        # diffusers loads our class only after its module has been imported.
        import_module("producers.text_to_image.projected_text_encoder")
        # Read apart: within a pipeline, transformers fills missing weights with random numbers and says nothing.
        text_encoder = read_model(getattr(import_module(library), class_name), folder / "text_encoder")
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            text_encoder=text_encoder.to(dtype),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    _check_tokenizer(pipeline, folder / "tokenizer")
    for part in FROZEN_PARTS:  # read_model has checked the text encoder
        if missing := [name for name, weight in getattr(pipeline, part).state_dict().items() if weight.is_meta]:
            raise CorruptDataError(
                f"{folder / part}: {len(missing)} weights are missing, such as {missing[0]}; copy the checkpoint again"
            )
    for part in ("text_encoder", *FROZEN_PARTS):
        for name, weight in getattr(pipeline, part).named_parameters():
            if not weight.isfinite().all():
                raise CorruptDataError(f"{folder / part}: {name} has values that are not finite; its training failed")
    set_max_length(pipeline)
    check_pipeline(pipeline, str(folder))
    for name in ("text_encoder", "unet", "vae"):
        getattr(pipeline, name).requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def check_pipeline(pipeline: "StableDiffusionPipeline", name: str) -> None:
    """Check that the parts of a pipeline fit together.

    Args:
        pipeline: the pipeline.
        name: what an error calls it, such as its folder.

    Raises:
        InvalidInputError: the UNet predicts something else than noise or velocity, does not state the side of its
            latents, or the width of the text states is not that of its cross-attention.
    """
    prediction = pipeline.scheduler.config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise InvalidInputError(
            f"{name}: the UNet predicts `{prediction}`; expected {' or '.join(PREDICTION_TYPES)}, as Stable Diffusion "
            "1.x and 2.x do"
        )
    if not isinstance(side := pipeline.unet.config.sample_size, int) or side < 1:
        raise InvalidInputError(
            f"{name}: the UNet's `sample_size` is {side}; expected the side of its latents, which are square"
        )
    expected, width = pipeline.unet.config.cross_attention_dim, measure_text_width(pipeline)
    if width != expected:
        raise InvalidInputError(
            f"{name}: the text encoder's states are {width} wide and the UNet attends to {expected}; "
            "`produce picture swap` puts a projection between them"
        )


def measure_text_width(pipeline: "StableDiffusionPipeline") -> int:
    """Return the width of the text states, measured on an empty sentence."""
    from producers.text_to_image.sentences import encode_sentences

    with torch.no_grad():
        return int(encode_sentences(pipeline, [""]).shape[-1])


def set_max_length(pipeline: "StableDiffusionPipeline") -> None:
    """Set the tokenizer's `model_max_length` to the number of positions of the text encoder if it is larger."""
    tokenizer, config = pipeline.tokenizer, pipeline.text_encoder.config
    positions = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions, MAX_TOKENS)


def save_pipeline(pipeline: "StableDiffusionPipeline", folder: Path) -> None:
    """Save a pipeline as a new folder, completely or not at all. All weights are safetensors.

    Args:
        pipeline: the pipeline.
        folder: it must not exist, unless it is empty.

    Raises:
        UnavailableError: the folder has content, or cannot be written, as when the disk is full.
    """
    with explain_write_errors(folder), replace_atomically(folder) as unfinished, _silence_diffusers():
        pipeline.save_pretrained(unfinished, safe_serialization=True)


def hash_frozen_parts(pipeline: "StableDiffusionPipeline") -> dict[str, str]:
    """Return the SHA-256 of the UNet and of the VAE: name of the part -> 64 hexadecimal digits.

    It covers name, dtype, shape and bytes of each tensor, in the order of their names. Training a text encoder leaves
    these as they are.

    Args:
        pipeline: the pipeline; its models may be on any device.
    """
    return {part: hash_tensors(getattr(pipeline, part).state_dict()) for part in FROZEN_PARTS}


def hash_tensors(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named tensors as 64 hexadecimal digits; it does not depend on their order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def compute_model_version(pipeline: "StableDiffusionPipeline") -> str:
    """Return a name of the model's exact weights, such as `StableDiffusionPipeline@3fa94c01d2e7`.

    Args:
        pipeline: the pipeline. Its text encoder, UNet and VAE count; the scheduler and the tokenizer do not.
    """
    hashes = {**hash_frozen_parts(pipeline), "text_encoder": hash_tensors(pipeline.text_encoder.state_dict())}
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    return f"{PIPELINE_CLASS}@{digest[:12]}"


@contextmanager
def _silence_diffusers() -> Iterator[None]:
    """Silence the progress bars of diffusers and transformers, and the warnings of diffusers, within the context.

    diffusers warns of every text encoder that is not CLIP's.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        for library in shown:
            library.enable_progress_bar()


def _check_tokenizer(pipeline: "StableDiffusionPipeline", folder: Path) -> None:
    """Check that a tokenizer has a vocabulary, and that the text encoder has an embedding for each of its tokens.

    transformers creates an empty tokenizer if the files of some classes are missing.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise CorruptDataError(f"{folder}: the vocabulary is missing; expected one of {', '.join(VOCABULARIES)}")
    embeddings = [module for module in pipeline.text_encoder.modules() if isinstance(module, torch.nn.Embedding)]
    size = max(module.num_embeddings for module in embeddings)  # those of positions are fewer
    if len(pipeline.tokenizer) > size:
        raise CorruptDataError(
            f"{folder}: the tokenizer has {len(pipeline.tokenizer):,} tokens and the text encoder {size:,}; copy the "
            "checkpoint again"
        )


def _check_index(folder: Path) -> dict[str, Any]:
    """Return the index of a checkpoint, which is of the expected class and names no foreign modules."""
    file = folder / INDEX_FILE
    if not file.is_file():
        raise NotFoundError(
            f"{folder}: not a checkpoint in the form of diffusers, {INDEX_FILE} is missing; expected a folder that "
            f"`{PIPELINE_CLASS}.from_pretrained` opens"
        )
    try:
        index: dict[str, Any] = parse_json(file.read_text(encoding="utf-8"))
        found = index.get("_class_name")
    except (ValueError, AttributeError) as error:
        raise CorruptDataError(f"{file}: not a JSON object; copy the checkpoint again") from error
    if found != PIPELINE_CLASS:
        raise InvalidInputError(
            f"{folder}: a checkpoint of the class {found}; expected {PIPELINE_CLASS}, which Stable Diffusion 1.x and "
            "2.x have"
        )
    named = {part: entry for part, entry in index.items() if isinstance(entry, list) and part not in OMITTED_PARTS}
    for part, entry in named.items():  # diffusers imports the modules of optional parts too
        library = str(entry[0]) if entry else ""
        if entry == [None, None] or library in LIBRARIES or library.startswith("producers.text_to_image."):
            continue
        raise InvalidInputError(
            f"{file}: {part} is of the module `{library}`, which opening the checkpoint would run; expected "
            f"{' or '.join(LIBRARIES)}"
        )
    for part in PARTS:
        entry = named.get(part, [])
        if [type(name) for name in entry] != [str, str]:
            raise InvalidInputError(f"{file}: names no {part}; expected a class of {' or '.join(LIBRARIES)}")
        if not (folder / part).is_dir():
            raise NotFoundError(f"{folder / part}: the folder is missing; copy the checkpoint again")
    return index
