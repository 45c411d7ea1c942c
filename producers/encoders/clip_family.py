"""Image-text encoders: CLIP, Chinese-CLIP, SigLIP, SigLIP2, BLIP, VisionTextDualEncoder and the default encoder."""

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
from feature_repo.errors import CorruptDataError
from feature_repo.fusion import Space
from feature_repo.images.geometry import Geometry
from producers.encoders import checkpoint_files, whitening
from producers.encoders.assembled.efficientnet_lite import EfficientNetLiteModel
from producers.encoders.batches import BatchRunner
from producers.encoders.blip import Blip
from producers.encoders.encoder import Pixels, Vectors
from producers.encoders.runtime import LENGTH_STEP, Runtime, Tower
from producers.encoders.tiny_clip import SmallConfig, SmallModel
from producers.encoders.tokens import Tokens, read_text_length, tokenize

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
"""Model classes by the `model_type` of config.json."""
UNMASKED = ("siglip", "siglip2")
"""Families without an attention mask: trained on texts padded to full length, with padding read like any token."""
CPU_IMAGE_BATCH = 64
"""Images per batch on a CPU. The values computed for 64 fit the processor's caches; 128 took a third longer."""
CPU_TEXT_BATCH = 128
"""Texts per batch on a CPU."""


class DualEncoder:
    """An encoder with an image tower and a text tower, whose vectors can be compared with each other.

    It implements the protocol `Encoder`.
    """

    has_images = True
    space: Space | None = None

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, *, family: str, version: str, runtime: Runtime
    ) -> None:
        """Prepare a model for inference; `load_encoder` reads the parts from a checkpoint.

        Args:
            model: transformers model with `get_image_features` and `get_text_features`; it is changed in place.
            tokenizer: the model's tokenizer.
            processor: the model's image processor, of the PIL backend.
            family: key of FAMILIES.
            version: `name@fingerprint`, the fingerprint from `checkpoint_version.fingerprint`.
            runtime: where and how the model runs.
        """
        if not runtime.has_accelerator:
            memory.keep_freed()
        self.runtime = runtime
        self.device, self.dtype = runtime.device, runtime.dtype
        folded = fold_batch_norms(model.eval())
        self.model = folded.to(self.device, self.dtype, memory_format=torch.channels_last)
        self.tokenizer = tokenizer
        self.processor = processor
        self.version = version
        self.geometry = read_geometry(processor)
        self.text_length = read_text_length(model.config.text_config, tokenizer)
        self.has_mask = family not in UNMASKED
        threads = runtime.threads
        self._images = BatchRunner(runtime.batch_size(CPU_IMAGE_BATCH), threads)
        self._texts = BatchRunner(runtime.batch_size(CPU_TEXT_BATCH), threads)
        self.image_batch_size = (4 if runtime.has_accelerator else 2 * threads) * self._images.size
        self.concurrent_calls = 2 if threads > 1 else 1
        self.image_tower: Tower = self._pixels_to_features
        """Maps images, uint8 [n, height, width, 3], to vectors [n, dim], not of unit length."""
        self.text_tower: Tower = self._tokens_to_features
        """Maps token ids [n, length], and their mask [n, length] if `has_mask`, to vectors [n, dim], not of unit
        length."""
        # pixels * scale + shift is the processor's rescaling and normalizing in one step.
        mean, deviation = (
            (torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
            if processor.do_normalize
            else (torch.zeros(3), torch.ones(3))
        )
        rescale = processor.rescale_factor if processor.do_rescale else 1.0
        self.scale = (rescale / deviation).view(1, 3, 1, 1).to(self.device)
        self.shift = (-mean / deviation).view(1, 3, 1, 1).to(self.device)
        self.dim = self._measure_dim()
        self.image_tower = runtime.compile(self.image_tower)
        self.text_tower = runtime.compile(self.text_tower)

    def _measure_dim(self) -> int:
        """Return the width of a vector."""
        return self.encode_texts(["x"]).shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors float32 [n, dim] of texts, in order; NaN where the model gives none.

        Texts of more than `text_length` tokens are truncated. No texts give [0, dim].
        """
        if not texts:
            return np.empty((0, self.dim), np.float32)
        tokens = tokenize(self.tokenizer, texts, self.text_length)
        return self._texts.run_shortest_first(lambda rows: self._text_features(tokens, rows), tokens.lengths)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Return unit vectors float32 [n, dim] of images, in order; NaN where the model gives none.

        Args:
            images: RGB images of any size, which the checkpoint's processor resizes. No images give [0, dim].
        """
        if not images:
            return np.empty((0, self.dim), np.float32)
        return self._images.run(self._image_features, images)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Return unit vectors float32 [n, dim] of resized images, in order; NaN where the model gives none.

        Args:
            pixels: RGB images resized by `geometry`, uint8 [n, height, width, 3]. No images give [0, dim]. Without a
                `geometry`, use `encode_images`.
        """
        if not len(pixels):
            return np.empty((0, self.dim), np.float32)
        return self._images.run(self._pixel_features, pixels)

    def text_inputs(self, tokens: Tokens, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the inputs of `text_tower`: ids int64 [m, length], and the mask of the same shape if `has_mask`.

        The length is that of the longest of the texts; rounded up if the model is compiled; without a mask always
        `text_length`.

        Args:
            tokens: the texts.
            rows: numbers, from 0, of m of these texts, in the order of the result; repeats are allowed.
        """
        length = None if self.has_mask else self.text_length
        if length is None and self.runtime.is_compiled:
            rounded_up = int(tokens.lengths[rows].max(initial=1)) + LENGTH_STEP - 1
            length = min(rounded_up - rounded_up % LENGTH_STEP, self.text_length)
        is_left = self.tokenizer.padding_side == "left"
        ids, mask = tokens.pad(rows, self.tokenizer.pad_token_id or 0, length=length, left=is_left)
        return (ids, mask) if self.has_mask else (ids,)

    def _text_features(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return features [rows, dim], not of unit length, of some texts."""
        padded = self.runtime.pad(rows, self._texts.size)
        return self.text_tower(*map(self.runtime.move, self.text_inputs(tokens, padded)))[: len(rows)]

    def _image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return features [n, dim], not of unit length, of images that the checkpoint's processor prepares."""
        inputs = self.processor(list(images), return_tensors="pt").to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return self.model.get_image_features(**inputs).pooler_output

    def _pixel_features(self, pixels: Pixels) -> torch.Tensor:
        """Return features [n, dim] of resized images, not of unit length."""
        padded = self.runtime.pad(pixels, self._images.size)
        return self.image_tower(self.runtime.move(padded))[: len(pixels)]

    def _pixels_to_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scale and normalize resized images, uint8 [n, height, width, 3], and return their features [n, dim]."""
        return self.model.get_image_features(pixel_values=self.prepare_pixels(pixels)).pooler_output

    def prepare_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return resized images, uint8 [n, height, width, 3], scaled and normalized, [n, 3, height, width]."""
        # Scale a whole row of pixels at once: three channels at a time would take a CPU four times as long.
        scale, shift = (each.flatten().repeat(pixels.shape[2]) for each in (self.scale, self.shift))
        values = torch.addcmul(shift, pixels.flatten(2).float(), scale).view(pixels.shape)
        # NHWC memory viewed as NCHW is torch's channels_last, the fastest layout for convolutions.
        return values.permute(0, 3, 1, 2).to(self.dtype)

    def _tokens_to_features(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features [n, dim] of token ids [n, length]; the mask is None for families without one."""
        inputs = {"input_ids": ids} if mask is None else {"input_ids": ids, "attention_mask": mask}
        return self.model.get_text_features(**inputs).pooler_output


def load_encoder(folder: Path, family: str, version: str, runtime: Runtime) -> DualEncoder:
    """Load a checkpoint directory of one of FAMILIES, with the space of its fused vectors if it has one, else None.

    Args:
        folder: the checkpoint.
        family: key of FAMILIES: the `model_type` of its config.json.
        version: `name@fingerprint`, which becomes the encoder's version.
        runtime: where and how the model runs.

    Raises:
        InvalidInputError: the checkpoint is of a BLIP without text vectors.
        CorruptDataError: weights, tokenizer or image processor are missing, unreadable, or do not fit each other.
    """
    model = checkpoint_files.read_model(FAMILIES[family], folder)
    tokenizer = checkpoint_files.read_tokenizer(folder, model.config.text_config.vocab_size)
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise CorruptDataError(f"{folder}: the image processor is missing; preprocessor_config.json was expected")
    with checkpoint_files.explain_errors(folder, "image processor"):
        processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, backend="pil")
    encoder = DualEncoder(model, tokenizer, processor, family=family, version=version, runtime=runtime)
    encoder.space = whitening.read_space(folder, encoder.dim)
    return encoder


def fold_batch_norms(model: Any) -> Any:
    """Fold each batch normalization of a ResNet or EfficientNet-Lite into the convolution before it, in place.

    Returns the model. For a ResNet that saves a tenth of the time on a CPU. The features stay the same within rounding.
    Other models stay as they are. A model can be folded only once.

    Args:
        model: transformers model in evaluation mode.
    """
    for layer in list(model.modules()):
        if isinstance(layer, EfficientNetLiteModel):
            layer.fold()
        elif isinstance(layer, ResNetConvLayer | ResNetShortCut):
            layer.convolution = fuse_conv_bn_eval(layer.convolution, layer.normalization)
            layer.normalization = torch.nn.Identity()
    return model


def read_geometry(processor: Any) -> Geometry | None:
    """Return how an image processor resizes and crops. Its scaling and normalizing of values play no part.

    None if it does more than that (ConvNeXT, the patches of SigLIP2), does not resize at all, gives images of unequal
    shapes, or pads images that are smaller than the crop.

    Args:
        processor: image processor of transformers, of the PIL backend.
    """
    own = type(processor)
    if own.resize is not PilBackend.resize or own._preprocess is not PilBackend._preprocess:
        return None
    if not processor.do_resize or getattr(processor, "do_pad", None):
        return None
    size: dict[str, int] = dict(processor.size)
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        return None
    crop = dict(processor.crop_size) if processor.do_center_crop else size
    if set(crop) != {"height", "width"}:
        return None  # images of unequal shapes do not form a batch
    resize_to = size.get("shortest_edge") or (size["height"], size["width"])
    try:
        return Geometry(**crop, resize_to=resize_to, resample=int(processor.resample))
    except ValueError:
        return None  # the processor pads an image that is smaller than the crop
