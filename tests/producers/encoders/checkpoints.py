"""Tiny checkpoints of every family, created from tiny configurations, because the tests have no hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessorPil,
    BlipModel,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessorPil,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"红色连衣裙男童鞋蓝女婴儿"]
TEXT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZE = {"height": 32, "width": 32}


def tokenizer(length: int = 24) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=length,
        padding_side="right",  # given, because families have different defaults (SigLIP2: left)
    )


def clip(folder: Path, dim: int = 12) -> None:
    config = CLIPConfig(text_config=TEXT | SPECIAL, vision_config=VISION, projection_dim=dim)
    _save(folder, CLIPModel(config), CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size=SIZE))


def chinese_clip(folder: Path) -> None:
    config = ChineseCLIPConfig(text_config=TEXT | {"pad_token_id": 0}, vision_config=VISION, projection_dim=12)
    _save(folder, ChineseCLIPModel(config), ChineseCLIPImageProcessorPil(size=SIZE, do_center_crop=False))


def siglip(folder: Path) -> None:
    config = SiglipConfig(text_config=TEXT | SPECIAL, vision_config=VISION)
    _save(folder, SiglipModel(config), SiglipImageProcessorPil(size=SIZE))


def siglip2(folder: Path) -> None:
    vision = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
    config = Siglip2Config(text_config=TEXT | SPECIAL, vision_config=vision)
    _save(folder, Siglip2Model(config), Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16))


def blip(folder: Path) -> None:
    _save(folder, BlipModel(_blip_config()), BlipImageProcessorPil(size=SIZE))


def blip_retrieval(folder: Path) -> None:
    _save(folder, BlipForImageTextRetrieval(_blip_config()), BlipImageProcessorPil(size=SIZE))


def _blip_config() -> BlipConfig:
    text = TEXT | SPECIAL | {"sep_token_id": 3}
    return BlipConfig(text_config=text, vision_config=VISION, projection_dim=12, image_text_hidden_size=12)


def dual_encoder(folder: Path) -> None:
    vision = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32)
    vision.hidden_size = 16
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, BertConfig(**TEXT), projection_dim=12)
    _save(folder, VisionTextDualEncoderModel(config), ConvNextImageProcessorPil(size={"shortest_edge": 32}))


IMAGE_TEXT: dict[str, Callable[[Path], None]] = {
    "clip": clip,
    "chinese_clip": chinese_clip,
    "blip": blip,
    "siglip": siglip,
    "siglip2": siglip2,
    "dual_encoder": dual_encoder,
}


def bert(folder: Path) -> None:
    """Write a plain BERT: a text model without a pooling of its token vectors."""
    torch.manual_seed(0)
    BertModel(BertConfig(**TEXT)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _save(folder: Path, model: Any, processor: Any) -> None:
    torch.manual_seed(0)
    for (
        name,
        parameter,
    ) in model.named_parameters():  # large weights, so that different inputs have clearly different vectors
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
        elif "layer_scale" in name:
            torch.nn.init.ones_(parameter)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    processor.save_pretrained(folder)
