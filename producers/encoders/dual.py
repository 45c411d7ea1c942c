"""Image-text encoders: CLIP, Chinese-CLIP, SigLIP, SigLIP2 and VisionTextDualEncoder checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    ChineseCLIPModel,
    CLIPModel,
    Siglip2Model,
    SiglipModel,
    VisionTextDualEncoderModel,
)
from transformers.image_processing_backends import PilBackend

from feature_repo.errors import VitrineError
from producers.encoders import files
from producers.encoders.batches import Batches
from producers.encoders.encoder import Pixels, Vectors
from producers.encoders.geometry import Geometry
from producers.encoders.small import SmallConfig, SmallModel

FAMILIES: Mapping[str, Any] = MappingProxyType(
    {
        "clip": CLIPModel,
        "chinese_clip": ChineseCLIPModel,
        "siglip": SiglipModel,
        "siglip2": Siglip2Model,
        "vision-text-dual-encoder": VisionTextDualEncoderModel,
        SmallConfig.model_type: SmallModel,
    }
)
UNMASKED = ("siglip", "siglip2")
"""Families trained on texts padded to full length, the padding read like any word."""
IMAGES_AT_ONCE = 128
TEXTS_AT_ONCE = 256


class DualEncoder:
    """An image tower and a text tower with one space; see `Encoder`."""

    has_images = True
    images_at_once = IMAGES_AT_ONCE

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, *, family: str, version: str, device: torch.device
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.processor = processor
        self.version = version
        self.device = device
        self.geometry = plain_geometry(processor)
        self._unmasked = family in UNMASKED
        self._text_length = text_length(model.config.text_config, tokenizer)
        self._images = Batches(IMAGES_AT_ONCE)
        self._texts = Batches(TEXTS_AT_ONCE)
        # x * scale + shift is the processor's rescaling and normalising in one step.
        mean, deviation = (
            (torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
            if processor.do_normalize
            else (torch.zeros(3), torch.ones(3))
        )
        rescale = processor.rescale_factor if processor.do_rescale else 1.0
        self._scale = (rescale / deviation).view(1, 3, 1, 1).to(device)
        self._shift = (-mean / deviation).view(1, 3, 1, 1).to(device)
        self.dim = self.encode_texts(["x"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dim), np.float32)
        return in_order_of_length(self._texts, self._text_features, texts)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if not images:
            return np.empty((0, self.dim), np.float32)
        return self._images.run(self._image_features, images)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        return self._images.run(self._pixel_features, pixels)

    def _text_features(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.tokenizer(
            list(texts),
            padding="max_length" if self._unmasked else "longest",
            truncation=True,
            max_length=self._text_length,
            return_tensors="pt",
        ).to(self.device)
        if self._unmasked:
            return self.model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
        return self.model.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output

    def _image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        inputs = self.processor(list(images), return_tensors="pt").to(self.device)
        return self.model.get_image_features(**inputs).pooler_output

    def _pixel_features(self, pixels: Pixels) -> torch.Tensor:
        # NHWC memory seen as NCHW is torch's channels_last: the layout convolutions like best.
        values = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(0, 3, 1, 2).float()
        return self.model.get_image_features(pixel_values=values * self._scale + self._shift).pooler_output


def open_folder(folder: Path, family: str, version: str, device: torch.device) -> DualEncoder:
    """Open a checkpoint directory of one of `FAMILIES`.

    Raises:
        VitrineError: weights, tokenizer or image processor are missing or do not fit.
    """
    model = files.read_model(FAMILIES[family], folder)
    tokenizer = files.read_tokenizer(folder, model.config.text_config.vocab_size)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise VitrineError(f"{folder}: the image processor is missing; preprocessor_config.json was expected")
    with files.explained(folder, "image processor"):
        processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, backend="pil")
    return DualEncoder(model, tokenizer, processor, family=family, version=version, device=device)


def plain_geometry(processor: Any) -> Geometry | None:
    """The processor's geometry, or null where it does more than resize and cut (ConvNeXT's, SigLIP2's patches)."""
    own = type(processor)
    if own.resize is not PilBackend.resize or own._preprocess is not PilBackend._preprocess:
        return None
    if not processor.do_resize or getattr(processor, "do_pad", None):
        return None
    size: dict[str, int] = dict(processor.size)
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        return None
    cut = dict(processor.crop_size) if processor.do_center_crop else size
    if set(cut) != {"height", "width"}:
        return None  # pictures of unequal shapes: no batch of them
    resize_to = size.get("shortest_edge") or (size["height"], size["width"])
    try:
        return Geometry(**cut, resize_to=resize_to, resample=int(processor.resample))
    except ValueError:
        return None  # a crop larger than the picture is padded by the processor


def text_length(config: Any, tokenizer: Any) -> int:
    """Most tokens the text tower reads."""
    positions = config.max_position_embeddings
    if "roberta" in config.model_type:  # its first positions stand for padding
        positions -= config.pad_token_id + 1
    return min(positions, tokenizer.model_max_length)


def in_order_of_length(batches: Batches, encode: Any, texts: Sequence[str]) -> Vectors:
    """Rows of `texts` in their order, computed shortest first so that a batch carries little padding."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    sorted_rows = batches.run(encode, [texts[i] for i in order])
    rows = np.empty_like(sorted_rows)
    rows[order] = sorted_rows
    return rows
