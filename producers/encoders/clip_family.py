"""Image-text encoders: CLIP, Chinese-CLIP, SigLIP, SigLIP2, BLIP, VisionTextDualEncoder and the default encoder."""

import logging
from collections.abc import Callable, Mapping, Sequence
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
from producers.encoders import checkpoint_files, whitening
from producers.encoders.assembled.efficientnet_lite import EfficientNetLiteModel
from producers.encoders.batches import BatchRunner
from producers.encoders.blip import Blip
from producers.encoders.encoder import Pixels, Vectors
from producers.encoders.geometry import Geometry
from producers.encoders.tiny_clip import SmallConfig, SmallModel
from producers.encoders.tokens import Tokens, read_text_length, tokenize
from producers.encoders.whitening import Space

logger = logging.getLogger(__name__)

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
GPU_BATCH = 256
"""Images or texts per batch on a GPU."""
GPU_LENGTH_STEP = 16
"""On a GPU texts are padded to a multiple of this length, because the tower is compiled once for each shape."""

Tower = Callable[..., torch.Tensor]


class DualEncoder:
    """An encoder with an image tower and a text tower, whose vectors can be compared with each other.

    It implements the protocol `Encoder`.
    """

    has_images = True
    space: Space | None = None

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, *, family: str, version: str, device: torch.device
    ) -> None:
        """Prepare a model for inference; `load_encoder` reads the parts from a checkpoint.

        Args:
            model: transformers model with `get_image_features` and `get_text_features`; it is changed in place.
            tokenizer: the model's tokenizer.
            processor: the model's image processor, of the PIL backend.
            family: key of FAMILIES.
            version: `name@fingerprint`, the fingerprint from `checkpoint_files.fingerprint`.
            device: where the model runs, in bfloat16 on a GPU and in float32 elsewhere.
        """
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
        self.has_mask = family not in UNMASKED
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._images = BatchRunner(GPU_BATCH if on_gpu else CPU_IMAGE_BATCH, threads)
        self._texts = BatchRunner(GPU_BATCH if on_gpu else CPU_TEXT_BATCH, threads)
        self.image_batch_size = 4 * GPU_BATCH if on_gpu else 2 * threads * CPU_IMAGE_BATCH
        self.concurrent_calls = 2 if threads > 1 else 1
        self.image_tower: Tower = CompiledTower(self._pixels_to_features) if on_gpu else self._pixels_to_features
        """Maps images, uint8 [n, height, width, 3], to vectors [n, dim], not of unit length."""
        self.text_tower: Tower = CompiledTower(self._tokens_to_features) if on_gpu else self._tokens_to_features
        """Maps token ids [n, length], and their mask [n, length] if `has_mask`, to vectors [n, dim], not of unit
        length."""
        # pixels * scale + shift is the processor's rescaling and normalizing in one step.
        mean, deviation = (
            (torch.tensor(processor.image_mean), torch.tensor(processor.image_std))
            if processor.do_normalize
            else (torch.zeros(3), torch.ones(3))
        )
        rescale = processor.rescale_factor if processor.do_rescale else 1.0
        self.scale = (rescale / deviation).view(1, 3, 1, 1).to(device)
        self.shift = (-mean / deviation).view(1, 3, 1, 1).to(device)
        self.dim = self._measure_dim()

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

        The length is that of the longest of the texts; on a GPU rounded up, without a mask always `text_length`.

        Args:
            tokens: the texts.
            rows: numbers, from 0, of m of these texts, in the order of the result; repeats are allowed.
        """
        length = None if self.has_mask else self.text_length
        if length is None and self.device.type == "cuda":
            rounded_up = int(tokens.lengths[rows].max(initial=1)) + GPU_LENGTH_STEP - 1
            length = min(rounded_up - rounded_up % GPU_LENGTH_STEP, self.text_length)
        is_left = self.tokenizer.padding_side == "left"
        ids, mask = tokens.pad(rows, self.tokenizer.pad_token_id or 0, length=length, left=is_left)
        return (ids, mask) if self.has_mask else (ids,)

    def _text_features(self, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return features [rows, dim], not of unit length, of some texts; a batch on a GPU is filled up to its size."""
        padded = pad_batch(rows, self._texts.size) if self.device.type == "cuda" else rows
        return self.text_tower(*map(self._to_device, self.text_inputs(tokens, padded)))[: len(rows)]

    def _image_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return features [n, dim], not of unit length, of images that the checkpoint's processor prepares."""
        inputs = self.processor(list(images), return_tensors="pt").to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        return self.model.get_image_features(**inputs).pooler_output

    def _pixel_features(self, pixels: Pixels) -> torch.Tensor:
        """Return features [n, dim] of resized images, not of unit length; a GPU batch is filled up to its size."""
        padded = pad_batch(pixels, self._images.size) if self.device.type == "cuda" else pixels
        return self.image_tower(self._to_device(padded))[: len(pixels)]

    def _to_device(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()  # so that the copy does not wait for the GPU's current work
        return tensor.to(self.device, non_blocking=True)

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


class CompiledTower:
    """A tower compiled with `torch.compile`, which replays it as a CUDA graph; used on GPUs only.

    It is compiled for each shape of its inputs. If it cannot be compiled (torch needs Triton and a C compiler), that is
    logged once and the tower runs uncompiled from then on. This class has not been run on a GPU: the tests run it on
    the CPU with torch's `eager` backend.
    """

    def __init__(self, tower: Tower, *, backend: str | Callable[..., Any] = "inductor") -> None:
        """Wrap a tower; it is compiled at its first call.

        Args:
            tower: function from tensors to a tensor [n, dim].
            backend: what compiles it: the argument `backend` of `torch.compile`.
        """
        self._tower = tower
        mode = "reduce-overhead" if backend == "inductor" else None  # the other backends have no modes
        self._compiled: Tower = torch.compile(tower, backend=backend, mode=mode, dynamic=False)
        self.is_compiled = True
        """False once a compilation has failed."""

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return what the tower returns, as a tensor of its own; inputs of a new shape are compiled for first.

        Raises:
            OutOfMemoryError: the GPU has too little memory for the inputs. Any other error of the compiled tower is
                logged, and the tower runs uncompiled.
        """
        if self.is_compiled:
            try:
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
                return self._compiled(*inputs).clone()  # a copy, because the next replay overwrites the output
            except torch.OutOfMemoryError:
                raise  # BatchRunner halves the batch
            except Exception as error:
                logger.warning("the model cannot be compiled and runs uncompiled: %s", str(error).split("\n")[0])
                self.is_compiled = False
        return self._tower(*inputs)


def load_encoder(folder: Path, family: str, version: str, device: torch.device) -> DualEncoder:
    """Load a checkpoint directory of one of FAMILIES, with the space of its fused vectors if it has one, else None.

    Args:
        folder: the checkpoint.
        family: key of FAMILIES: the `model_type` of its config.json.
        version: `name@fingerprint`, which becomes the encoder's version.
        device: where the model runs.

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
    encoder = DualEncoder(model, tokenizer, processor, family=family, version=version, device=device)
    encoder.space = whitening.read_space(folder, encoder.dim)
    return encoder


def pad_batch(rows: NDArray[Any], size: int) -> NDArray[Any]:
    """Append copies of the last row up to `size` rows, so that every batch has the shape that was compiled.

    Args:
        rows: array [n, ...] with 0 < n <= `size`; returned itself if n is `size`.
        size: number of rows of the result.
    """
    return rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


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
