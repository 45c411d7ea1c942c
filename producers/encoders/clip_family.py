"""Image-text encoders: CLIP, Chinese-CLIP, SigLIP, SigLIP2, BLIP and VisionTextDualEncoder checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import (
    AutoImageProcessor,
    ChineseCLIPModel,
    CLIPModel,
    Siglip2Model,
    SiglipModel,
    VisionTextDualEncoderModel,
)
from transformers.image_processing_backends import PilBackend
from transformers.models.resnet.modeling_resnet import ResNetConvLayer, ResNetShortCut

from feature_repo import memory
from feature_repo.errors import VitrineError
from producers.encoders import checkpoint_files, whitening
from producers.encoders.batches import BatchRunner
from producers.encoders.blip import Blip
from producers.encoders.cuda_graphs import Captured, Sent, Tower, filled
from producers.encoders.encoder import Pixels, Vectors
from producers.encoders.geometry import Geometry
from producers.encoders.tiny_clip import SmallConfig, SmallModel
from producers.encoders.tokens import Tokens, read_text_length, tokenize
from producers.encoders.whitening import Space

FAMILIES: Mapping[str, Any] = MappingProxyType(
    {
        "clip": CLIPModel,
        "chinese_clip": ChineseCLIPModel,
        "blip": Blip,
        "siglip": SiglipModel,
        "siglip2": Siglip2Model,
        "vision-text-dual-encoder": VisionTextDualEncoderModel,
        SmallConfig.model_type: SmallModel,
    }
)
UNMASKED = ("siglip", "siglip2")
"""Families trained on texts padded to full length, the padding read like any word."""
IMAGES_AT_ONCE = 64
"""On a CPU: what a batch computes on its way stays in the processor's caches. 128 took a third longer."""
TEXTS_AT_ONCE = 128
ON_A_GPU = 256
"""Images or texts at once there."""
TOKEN_STEP = 16
"""On a GPU texts are padded to a multiple: few shapes, each of them captured once."""


class DualEncoder:
    """An image tower and a text tower with one space; see `Encoder`."""

    has_images = True
    space: Space | None = None

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, *, family: str, version: str, device: torch.device
    ) -> None:
        on_gpu = device.type == "cuda"
        if not on_gpu:
            memory.keep_freed()
        self.dtype = torch.bfloat16 if on_gpu else torch.float32
        self.model = fold_batch_norms(model.eval()).to(device, self.dtype, memory_format=torch.channels_last)
        self.tokenizer = tokenizer
        self.processor = processor
        self.version = version
        self.device = device
        self.geometry = read_geometry(processor)
        self.text_length = read_text_length(model.config.text_config, tokenizer)
        self.unmasked = family in UNMASKED
        lanes = torch.get_num_threads() if device.type == "cpu" else 1
        self._images = BatchRunner(ON_A_GPU if on_gpu else IMAGES_AT_ONCE, lanes)
        self._texts = BatchRunner(ON_A_GPU if on_gpu else TEXTS_AT_ONCE, lanes)
        self.images_at_once = 2 * lanes * IMAGES_AT_ONCE if not on_gpu else 4 * ON_A_GPU
        self.callers = 2 if lanes > 1 else 1
        self._sent = Sent(device)
        self.image_tower: Tower = Captured(self._pixels_to_features) if on_gpu else self._pixels_to_features
        """[n, d] from uint8 [n, height, width, 3]."""
        self.text_tower: Tower = Captured(self._tokens_to_features) if on_gpu else self._tokens_to_features
        """[n, d] from token ids, and their mask where the family reads one, [n, length]."""
        # x * scale + shift is the processor's rescaling and normalising in one step.
        mean, deviation = (
            (torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
            if processor.do_normalize
            else (torch.zeros(3), torch.ones(3))
        )
        rescale = processor.rescale_factor if processor.do_rescale else 1.0
        self.scale = (rescale / deviation).view(1, 3, 1, 1).to(device)
        self.shift = (-mean / deviation).view(1, 3, 1, 1).to(device)
        self.dim = self.encode_texts(["x"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dim), np.float32)
        tokens = tokenize(self.tokenizer, texts, self.text_length)
        return self._texts.run_shortest_first(lambda rows: self._text_features(tokens, rows), tokens.lengths)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if not images:
            return np.empty((0, self.dim), np.float32)
        return self._images.run(self._image_features, images)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        return self._images.run(self._pixel_features, pixels)

    def text_inputs(self, tokens: Tokens, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Token ids, and their mask where the family reads one, [rows, length] each."""
        longest = self.text_length if self.unmasked else None
        if longest is None and self.device.type == "cuda":
            step = int(tokens.lengths[rows].max(initial=1)) + TOKEN_STEP - 1
            longest = min(step - step % TOKEN_STEP, self.text_length)
        left = self.tokenizer.padding_side == "left"
        ids, mask = tokens.padded(rows, self.tokenizer.pad_token_id or 0, to=longest, left=left)
        return (ids,) if self.unmasked else (ids, mask)

    def _text_features(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        asked = filled(rows, self._texts.size) if self.device.type == "cuda" else rows
        return self.text_tower(*map(self._sent, self.text_inputs(tokens, asked)))[: len(rows)]

    def _image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        inputs = self.processor(list(images), return_tensors="pt").to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return self.model.get_image_features(**inputs).pooler_output

    def _pixel_features(self, pixels: Pixels) -> torch.Tensor:
        asked = filled(pixels, self._images.size) if self.device.type == "cuda" else pixels
        return self.image_tower(self._sent(asked))[: len(pixels)]

    def _pixels_to_features(self, pixels: torch.Tensor) -> torch.Tensor:
        # A row of pixels at a time: three numbers at a time would take a processor four times as long.
        scale, shift = (each.flatten().repeat(pixels.shape[2]) for each in (self.scale, self.shift))
        values = torch.addcmul(shift, pixels.flatten(2).float(), scale).view(pixels.shape)
        # NHWC memory seen as NCHW is torch's channels_last: the layout convolutions like best.
        values = values.permute(0, 3, 1, 2).to(self.dtype)
        return self.model.get_image_features(pixel_values=values).pooler_output

    def _tokens_to_features(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        read = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
        return self.model.get_text_features(**read).pooler_output


def open_folder(folder: Path, family: str, version: str, device: torch.device) -> DualEncoder:
    """Open a checkpoint directory of one of `FAMILIES`.

    Raises:
        VitrineError: weights, tokenizer or image processor are missing or do not fit.
    """
    model = checkpoint_files.read_model(FAMILIES[family], folder)
    tokenizer = checkpoint_files.read_tokenizer(folder, model.config.text_config.vocab_size)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise VitrineError(f"{folder}: the image processor is missing; preprocessor_config.json was expected")
    with checkpoint_files.explain_errors(folder, "image processor"):
        processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, backend="pil")
    encoder = DualEncoder(model, tokenizer, processor, family=family, version=version, device=device)
    encoder.space = whitening.read_space(folder, encoder.dim)
    return encoder


def fold_batch_norms(model: Any) -> Any:
    """The model, each normalisation of a ResNet put into the convolution before it: a tenth of the time on a CPU."""
    for layer in model.modules():
        if isinstance(layer, ResNetConvLayer | ResNetShortCut):
            layer.convolution = fuse_conv_bn_eval(layer.convolution, layer.normalization)
            layer.normalization = torch.nn.Identity()
    return model


def read_geometry(processor: Any) -> Geometry | None:
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
