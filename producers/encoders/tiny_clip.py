"""The default encoder: some hundred thousand weights, trained from nothing on the shop's own catalogue in a minute.

A convolutional image tower, because it learns from thousands of pictures what a transformer needs millions for, and one
layer of text whose words are averaged: with one layer and some hundred steps, a class token has not yet learnt to look
at them. Both towers are transformers' own, and the checkpoint is saved and read as any other.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessorPil,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
)

from producers.encoders.geometry import Geometry

SIDE = 64
"""Pixels of a picture's side."""
DIMENSIONS = 128
VOCABULARY = 2000
RAREST_MERGE = 0.005
"""Share of the titles below which two pieces that stand side by side are no word, but neighbours by accident: where
titles run on without spaces, a vocabulary filled up with those hides the words themselves."""
TEXT_LENGTH = 48
FIRST_SCALE = 14.0
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GEOMETRY = Geometry(height=SIDE, width=SIDE, resize_to=(SIDE, SIDE), resample=3)
VISION = {"embedding_size": 24, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1], "layer_type": "basic"}
TEXT = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 256}


class SmallConfig(PretrainedConfig):
    """Settings of the two towers, as ResNetConfig and BertConfig take them, and the width of the common space."""

    model_type = "vitrine-small"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        projection_dim: int = DIMENSIONS,
        **rest: Any,
    ) -> None:
        self.vision = vision or VISION
        self.text = text or TEXT
        self.projection_dim = projection_dim
        super().__init__(**rest)

    @property
    def text_config(self) -> BertConfig:
        """The text tower's configuration."""
        return BertConfig(**self.text)


class SmallModel(PreTrainedModel):
    """Two towers, each followed by a normalisation that centres its features and a projection to the common space."""

    config_class = SmallConfig

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        vision, text = ResNetConfig(**config.vision), config.text_config
        self.vision_model = ResNetModel(vision)
        self.text_model = BertModel(text, add_pooling_layer=False)
        self.vision_norm = nn.BatchNorm1d(vision.hidden_sizes[-1])
        self.text_norm = nn.BatchNorm1d(text.hidden_size)
        self.visual_projection = nn.Linear(vision.hidden_sizes[-1], config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """`pooler_output` [n, d], not of unit length; `last_hidden_state` [n, width, h, w]; of [n, 3, side, side]."""
        seen = self.vision_model(pixel_values=pixel_values)
        pooled = self.visual_projection(self.vision_norm(seen.pooler_output.flatten(1)))
        return SimpleNamespace(pooler_output=pooled, last_hidden_state=seen.last_hidden_state)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """`pooler_output`: [n, d], not of unit length, from token ids and mask [n, length]."""
        words = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        present = attention_mask[..., None].to(words.dtype)
        mean = (words * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        return SimpleNamespace(pooler_output=self.text_projection(self.text_norm(mean)))


def build_model(vocabulary: int) -> SmallModel:
    """An untrained model for a tokenizer of that many tokens."""
    text = TEXT | {
        "vocab_size": vocabulary,
        "max_position_embeddings": TEXT_LENGTH,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": SPECIAL.index("[PAD]"),
    }
    return SmallModel(SmallConfig(VISION, text)).to(memory_format=torch.channels_last)


def train_tokenizer(titles: list[str]) -> PreTrainedTokenizerFast:
    """Pieces of words from the titles themselves (byte-pair encoding, Sennrich et al. 2016), whatever the language.

    Byte pairs and not the unigram model, whose training gives another vocabulary each time.
    """
    core = Tokenizer(models.BPE(unk_token="[UNK]"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits()]
    )
    core.train_from_iterator(
        titles,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            min_frequency=max(2, round(RAREST_MERGE * len(titles))),
            special_tokens=list(SPECIAL),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(word, SPECIAL.index(word)) for word in ("[CLS]", "[SEP]")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=TEXT_LENGTH,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def save_checkpoint(model: SmallModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a checkpoint that `producers.encoders.load` opens."""
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(
        size=size, resample=GEOMETRY.resample, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
