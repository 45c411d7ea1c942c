"""The default encoder: a few hundred thousand weights, trained from scratch on the shop's catalogue in a minute.

The image tower is convolutional, because it learns from thousands of images what a transformer needs millions for. The
text tower has one layer and averages its token vectors: with one layer and some hundred steps, a class token has not
learned to attend to them. Both towers are classes of transformers, and the checkpoint is saved and read like any other.
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

from feature_repo.images.geometry import Geometry
from producers.encoders.texture import Texture

SIDE = 64
"""Height and width of an image, in pixels."""
DIMENSIONS = 128
"""Width of a vector of either tower."""
VOCABULARY_SIZE = 2000
MIN_MERGE_SHARE = 0.005
"""Smallest share of titles that a merge of two tokens must occur in. Rarer pairs are neighbours by accident, not words;
in languages without spaces, a vocabulary filled up with them hides the words."""
TEXT_LENGTH = 48
"""Largest number of tokens of a text, [CLS] and [SEP] included."""
INITIAL_SCALE = 14.0
"""Initial inverse temperature of the contrastive loss."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GEOMETRY = Geometry(height=SIDE, width=SIDE, resize_to=(SIDE, SIDE), resample=3)
VISION = {"embedding_size": 24, "hidden_sizes": [32, 64, 128], "depths": [1, 1, 1], "layer_type": "basic"}
TEXT = {"hidden_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 256}


class SmallConfig(PretrainedConfig):
    """Configuration of `SmallModel`: the sizes of its towers.

    config.json stores the names of both classes and `model_type`, so they must not change.
    """

    model_type = "vitrine-small"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
        projection_dim: int = DIMENSIONS,
        texture: dict[str, Any] | None = None,
        **rest: Any,
    ) -> None:
        """Set the sizes of the towers.

        Args:
            vision: arguments of ResNetConfig, in place of VISION; None takes VISION.
            text: arguments of BertConfig, in place of TEXT; None takes TEXT.
            projection_dim: width of the vectors of both towers.
            texture: arguments of Texture, which is projected beside the image tower's output; None for none. A model
                gets one when it is tuned.
            rest: arguments of PretrainedConfig.
        """
        self.vision = vision or VISION
        self.text = text or TEXT
        self.projection_dim = projection_dim
        self.texture = texture
        super().__init__(**rest)

    @property
    def text_config(self) -> BertConfig:
        """Configuration of the text tower, a new object at each call."""
        return BertConfig(**self.text)


class SmallModel(PreTrainedModel):
    """The default model: an image and a text tower, each followed by batch normalization and a linear projection.

    The projections bring the vectors of both towers to one width, `projection_dim`, so that they can be compared.
    """

    config_class = SmallConfig

    def __init__(self, config: SmallConfig) -> None:
        """Create a model with random weights, drawn from torch's global seed."""
        super().__init__(config)
        vision, text = ResNetConfig(**config.vision), config.text_config
        self.vision_model = ResNetModel(vision)
        self.text_model = BertModel(text, add_pooling_layer=False)
        self.vision_norm = nn.BatchNorm1d(vision.hidden_sizes[-1])
        self.text_norm = nn.BatchNorm1d(text.hidden_size)
        self.texture = Texture(**config.texture) if config.texture else None
        width = vision.hidden_sizes[-1] + (self.texture.width if self.texture else 0)
        self.visual_projection = nn.Linear(width, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(INITIAL_SCALE)))
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """Compute the features of images.

        Args:
            pixel_values: images [n, 3, SIDE, SIDE], scaled to [-1, 1].

        Returns:
            `pooler_output` [n, dim], not of unit length; `last_hidden_state` [n, width, h, w], the features of h x w
            regions of the image.
        """
        output = self.vision_model(pixel_values=pixel_values)
        pooled = self.vision_norm(output.pooler_output.flatten(1))
        if self.texture is not None:
            pooled = torch.cat([pooled, self.texture(pixel_values).to(pooled.dtype)], dim=1)
        return SimpleNamespace(pooler_output=self.visual_projection(pooled), last_hidden_state=output.last_hidden_state)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """Compute the features of texts, from the mean of their token vectors, padding left out.

        Args:
            input_ids: token ids, int64 [n, length], length at most TEXT_LENGTH.
            attention_mask: 1 for a token, 0 for padding [n, length].

        Returns:
            `pooler_output` [n, dim], not of unit length.
        """
        tokens = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        present = attention_mask[..., None].to(tokens.dtype)
        mean = (tokens * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        return SimpleNamespace(pooler_output=self.text_projection(self.text_norm(mean)))


def build_model(vocabulary_size: int) -> SmallModel:
    """Return an untrained `SmallModel` on the CPU; its weights are drawn from torch's global seed.

    Args:
        vocabulary_size: number of tokens of its tokenizer.
    """
    text = TEXT | {
        "vocab_size": vocabulary_size,
        "max_position_embeddings": TEXT_LENGTH,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": SPECIAL.index("[PAD]"),
    }
    return SmallModel(SmallConfig(VISION, text)).to(memory_format=torch.channels_last)


def train_tokenizer(titles: list[str]) -> PreTrainedTokenizerFast:
    """Train a tokenizer of byte-pair encoding (Sennrich et al. 2016) on titles of any language.

    The same titles in the same order always give the same tokenizer; the unigram model would not. The tokenizer
    lowercases texts, and puts them between [CLS] and [SEP].

    Args:
        titles: the titles; a repeated one counts each time.

    Returns:
        A tokenizer with at most VOCABULARY_SIZE tokens, SPECIAL included, or more if the titles have more different
        characters. A call with `truncation=True` truncates at TEXT_LENGTH tokens.
    """
    core = Tokenizer(models.BPE(unk_token="[UNK]"))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits()]
    )
    core.train_from_iterator(
        titles,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE,
            min_frequency=max(2, round(MIN_MERGE_SHARE * len(titles))),
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
    """Write a checkpoint that `producers.encoders.load` reads: model, tokenizer and image processor.

    Args:
        model: the model.
        tokenizer: its tokenizer, from `train_tokenizer`.
        folder: created if it does not exist. Files of an earlier checkpoint in it are replaced, other files stay.

    Raises:
        SafetensorError: the weights cannot be written, as when the disk is full.
    """
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(
        size=size, resample=GEOMETRY.resample, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
