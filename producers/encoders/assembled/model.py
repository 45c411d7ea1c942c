"""The assembled model: an image tower, perhaps a text tower, the shop's words, and the heads that join them.

    image vector = head(output of the image tower)
    text vector  = head(output of the text tower) + sum of the vectors of its words, weighted by their idf

Outputs of towers are rounded to float16 wherever a head reads them, so that a vector made of a stored output equals one
that is made at once. All weights, those of the towers too, are in one model.safetensors.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    ChineseCLIPTextModel,
    PretrainedConfig,
    PreTrainedModel,
    SiglipTextModel,
)

from producers.encoders.assembled.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel
from producers.encoders.assembled.tokenizer import WORDS_LENGTH
from producers.encoders.sentence import pool

TOWER_CLASSES: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        EfficientNetLiteConfig.model_type: EfficientNetLiteModel,
        "chinese_clip_text_model": partial(ChineseCLIPTextModel, add_pooling_layer=False),
        "siglip_text_model": SiglipTextModel,
    }
)
"""Classes of towers that transformers does not find by their configuration."""
INITIAL_SCALE = 14.0
"""Initial inverse temperature of the contrastive loss."""
MAX_OUTPUT = 60_000.0
"""Outputs of towers are limited to this size, because float16 ends at 65,504."""


class AssembledConfig(PretrainedConfig):
    """Configuration of `AssembledModel`. config.json stores `model_type`, so it must not change."""

    model_type = "vitrine-assembled"

    def __init__(
        self,
        image: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        words: int = 1,
        hidden: int = 0,
        projection_dim: int = 128,
        **rest: Any,
    ) -> None:
        """Describe the parts.

        Args:
            image: of the image tower: `name`, `config` (of transformers), `pooling` ("pooler", "first" or "mean") and
                `width` of its output.
            text: of the text tower: `name`, `config`, `poolings` (of sentence.pool, or "pooler"), `dense` (in, out,
                bias and activation of each dense layer after the pooling), `width`, `length` in tokens, `has_mask`,
                `prompt` and `lower`; None without a text tower.
            words: size of the vocabulary of words, padding included.
            hidden: width of the hidden layer of each head; 0 makes the heads linear.
            projection_dim: width of the vectors.
            rest: arguments of PretrainedConfig.
        """
        self.image, self.text, self.words = image or {}, text, words
        self.hidden, self.projection_dim = hidden, projection_dim
        super().__init__(**rest)

    @property
    def text_config(self) -> Any:
        """What the rest of the package reads of a text tower: the longest row of ids."""
        length = WORDS_LENGTH + (self.text["length"] if self.text else 0)
        return SimpleNamespace(max_position_embeddings=length, model_type=self.model_type)


class ImageTower(nn.Module):
    """A vision model and how its states become one output per image, [n, width]."""

    def __init__(self, model: Any, pooling: str) -> None:
        super().__init__()
        self.model, self.pooling = model, pooling

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return outputs [n, width] of images [n, 3, height, width]."""
        output = self.model(pixel_values=pixel_values)
        if self.pooling == "pooler":
            return output.pooler_output.flatten(1)
        states = output.last_hidden_state
        if self.pooling == "first":
            return states[:, 0]
        return states.flatten(2).mean(dim=2) if states.dim() == 4 else states.mean(dim=1)


class TextTower(nn.Module):
    """A text model, its pooling and the dense layers after it, [n, width]."""

    def __init__(self, model: Any, poolings: list[str], layers: list[nn.Module], *, has_mask: bool) -> None:
        super().__init__()
        self.model, self.poolings, self.has_mask = model, poolings, has_mask
        self.layers = nn.Sequential(*layers)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs [n, width] of token ids [n, length]; the mask [n, length] is ignored without `has_mask`."""
        output = self.model(input_ids=ids, attention_mask=mask) if self.has_mask else self.model(input_ids=ids)
        pooled = [
            output.pooler_output
            if pooling == "pooler"
            else pool(output.last_hidden_state, torch.ones_like(ids) if mask is None else mask, pooling)
            for pooling in self.poolings
        ]
        return self.layers(torch.cat(pooled, dim=1).to(output.last_hidden_state.dtype))


class Head(nn.Module):
    """Outputs of a tower, standardized, to vectors: a linear map, or one hidden layer beside it."""

    centre: torch.Tensor
    """Mean of each value of the outputs [width]."""
    spread: torch.Tensor
    """What each value is divided by [width]."""

    def __init__(self, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.linear = nn.Linear(width, dim)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, dim)) if hidden else None

    def standardize(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return outputs [n, width] with about the same mean and spread in every value."""
        return (outputs.to(self.centre.dtype) - self.centre) / self.spread

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return vectors [n, dim], not of unit length, of outputs [n, width]."""
        return self.project(self.standardize(outputs))

    def project(self, values: torch.Tensor) -> torch.Tensor:
        """Return vectors [n, dim] of standardized outputs [n, width]."""
        vectors = self.linear(values)
        return vectors if self.hidden is None else vectors + self.hidden(values)


class Words(nn.Module):
    """A bag of the shop's words: the sum of their vectors, weighted by idf, over the length of the weights."""

    idf: torch.Tensor
    """Weight of each word [words]; 0 for padding and for words of no title."""

    def __init__(self, words: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("idf", torch.zeros(words))
        self.table = nn.Embedding(words, dim)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return vectors [n, dim] of word ids [n, m]; 0 for a text without a word that is known."""
        return self.sum_words(ids, self.idf[ids])

    def sum_words(self, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the same with other weights [n, m]."""
        length = weights.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-3)
        return (self.table(ids) * (weights / length)[..., None]).sum(dim=1)


class AssembledModel(PreTrainedModel):
    """Towers, words and heads, with the methods of the other image-text models."""

    config_class = AssembledConfig

    def __init__(self, config: AssembledConfig) -> None:
        """Create a model with random weights, drawn from torch's global seed."""
        super().__init__(config)
        image, text = config.image, config.text
        self.image_tower = ImageTower(build_tower(image["config"]), image["pooling"])
        self.image_head = Head(image["width"], config.hidden, config.projection_dim)
        if text:
            layers = [build_dense(layer) for layer in text["dense"]]
            self.text_tower = TextTower(
                build_tower(text["config"]), text["poolings"], layers, has_mask=text["has_mask"]
            )
            self.text_head = Head(text["width"], config.hidden, config.projection_dim)
        self.words = Words(config.words, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))
        self.post_init()

    @property
    def has_text_tower(self) -> bool:
        """Whether there is a text tower beside the words."""
        return self.config.text is not None

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every layer as torch or its own model has created it."""

    def get_image_outputs(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the image tower's outputs [n, width], rounded to float16, of images [n, 3, height, width]."""
        return round_outputs(self.image_tower(pixel_values))

    def get_text_outputs(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the text tower's outputs [n, width], rounded to float16, of rows of a PairTokenizer."""
        mask = None if attention_mask is None else attention_mask[:, WORDS_LENGTH:]
        return round_outputs(self.text_tower(input_ids[:, WORDS_LENGTH:], mask))

    def get_image_features(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """Return `pooler_output` [n, dim], not of unit length, of images [n, 3, height, width]."""
        return SimpleNamespace(pooler_output=self.image_head(self.get_image_outputs(pixel_values)))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> SimpleNamespace:
        """Return `pooler_output` [n, dim], not of unit length, of rows of a PairTokenizer and their mask.

        Without a text tower, or if it reads no mask, there needs to be none.
        """
        outputs = self.get_text_outputs(input_ids, attention_mask) if self.has_text_tower else None
        return SimpleNamespace(pooler_output=self.join_text(input_ids[:, :WORDS_LENGTH], outputs))

    def join_text(self, words: torch.Tensor, outputs: torch.Tensor | None) -> torch.Tensor:
        """Return text vectors [n, dim] of word ids [n, m] and the text tower's outputs [n, width]; None without one."""
        vectors = self.words(words)
        return vectors if outputs is None else vectors + self.text_head(outputs)


def round_outputs(outputs: torch.Tensor) -> torch.Tensor:
    """Return outputs of a tower rounded to float16, as float32; NaN stays NaN."""
    return outputs.float().clamp(-MAX_OUTPUT, MAX_OUTPUT).half().float()


def build_tower(config: dict[str, Any]) -> Any:
    """Return a transformers model of random weights.

    Args:
        config: its configuration as a dictionary, with `model_type`.
    """
    rest = {key: value for key, value in config.items() if key != "model_type"}
    if config["model_type"] == EfficientNetLiteConfig.model_type:
        settings: Any = EfficientNetLiteConfig(**rest)
    else:
        settings = AutoConfig.for_model(config["model_type"], **rest)
    return TOWER_CLASSES.get(config["model_type"], AutoModel.from_config)(settings)


def build_dense(layer: dict[str, Any]) -> nn.Module:
    """Return a linear layer and its activation: `in`, `out`, `bias`, and the name of a class of torch.nn."""
    linear = nn.Linear(layer["in"], layer["out"], bias=layer["bias"])
    return nn.Sequential(linear, getattr(nn, layer["activation"])())
