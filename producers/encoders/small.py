"""The default encoder: a few hundred thousand weights, trained from nothing on the shop's own catalogue in a minute.

A convolutional image tower, because it learns from thousands of pictures what a transformer needs millions for, and one
layer of text. Both are transformers' own, so the checkpoint is an ordinary VisionTextDualEncoder.
"""

import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    CLIPImageProcessorPil,
    PreTrainedTokenizerFast,
    ResNetConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from producers.encoders.geometry import Geometry

SIDE = 64
"""Pixels of a picture's side."""
DIMENSIONS = 128
VOCABULARY = 2000
TEXT_LENGTH = 48
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GEOMETRY = Geometry(height=SIDE, width=SIDE, resize_to=(SIDE, SIDE), resample=3)


class DualEncoderModel(VisionTextDualEncoderModel):
    """VisionTextDualEncoder that also takes towers whose pooled output keeps its 1 x 1 grid (ResNet, RegNet, BiT)."""

    def get_image_features(self, pixel_values: torch.Tensor, **options: Any) -> Any:
        """The tower's output with `pooler_output` projected [n, d]."""
        output = self.vision_model(pixel_values=pixel_values, **options)
        output.pooler_output = self.visual_projection(output.pooler_output.flatten(1))
        return output


def build(vocabulary: int) -> DualEncoderModel:
    """An untrained model for a tokenizer of that many tokens."""
    widths = [32, 64, 128]
    vision = ResNetConfig(
        embedding_size=24, hidden_sizes=widths, depths=[1, 1, 1], layer_type="basic", downsample_in_first_stage=False
    )
    vision.hidden_size = widths[-1]  # where VisionTextDualEncoder looks for it
    text = BertConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=TEXT_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=SPECIAL.index("[PAD]"),
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=DIMENSIONS, logit_scale_init_value=math.log(14)
    )
    model = DualEncoderModel(config).to(memory_format=torch.channels_last)
    # BERT's words start too alike for the few thousand steps there are.
    torch.nn.init.normal_(model.text_model.embeddings.word_embeddings.weight, std=0.05)
    return model


def learn_tokenizer(titles: list[str]) -> PreTrainedTokenizerFast:
    """Pieces of words from the titles themselves (unigram, Kudo 2018): Chinese and English alike need no word list."""
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    core.train_from_iterator(
        titles,
        trainers.UnigramTrainer(
            vocab_size=VOCABULARY, special_tokens=list(SPECIAL), unk_token="[UNK]", show_progress=False
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


def save(model: DualEncoderModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a checkpoint that `producers.encoders.load` opens."""
    size = {"height": SIDE, "width": SIDE}
    processor = CLIPImageProcessorPil(
        size=size, resample=GEOMETRY.resample, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
