"""Encoders with random weights for encoding_gpu.py, and the operations of a forward pass and of a matrix product."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

VIT_B_16 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TITLES = ["red dress with short sleeves for girls, size 110", "blue shoes", "soft toy bear for babies of six months"]


def make_vision_transformer(folder: Path, *, tiny: bool) -> Path:
    """Write a CLIP checkpoint with random weights; its speed does not depend on its weights."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from producers.encoders import tiny_clip

    size = TINY if tiny else VIT_B_16
    tokenizer = tiny_clip.train_tokenizer(TITLES)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    words = size | special | {"vocab_size": 49_408, "max_position_embeddings": 77}
    words |= {} if tiny else {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048}
    config = CLIPConfig(text_config=words, vision_config=size | {"image_size": 224, "patch_size": 16})
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}).save_pretrained(folder)
    return folder


def make_lite0(folder: Path) -> Path:
    """Write an assembled encoder of EfficientNet-Lite0 with random weights and the words of TITLES."""
    from producers.encoders import tiny_clip
    from producers.encoders.assembled import efficientnet_lite
    from producers.encoders.assembled.assemble import AssembledParts, save_checkpoint
    from producers.encoders.assembled.model import AssembledConfig, AssembledModel
    from producers.encoders.assembled.tokenizer import PairTokenizer

    words = tiny_clip.train_tokenizer(TITLES)
    tower = {"name": "random", "config": efficientnet_lite.make_config().to_dict(), "pooling": "pooler", "width": 1280}
    model = AssembledModel(AssembledConfig(tower, None, len(words))).eval()
    tokenizer = PairTokenizer(words, None, length=0, prompt="", lower=False, is_padded=False)
    save_checkpoint(AssembledParts(model, tokenizer, efficientnet_lite.make_processor()), None, folder)
    return folder


def count_image_flops(encoder: Any) -> float:
    """Count floating-point operations of the image tower for one image; a multiply-add counts as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    one = torch.zeros((1, 224, 224, 3), dtype=torch.uint8, device=encoder.device)
    with torch.no_grad(), counter:
        encoder._pixels_to_features(one)
    return float(counter.get_total_flops())


def make_matrix_product(device: Any, dtype: Any) -> tuple[Callable[[], None], float]:
    """Return a run of square matrix products that waits for the result, and its number of operations."""
    import torch

    side, times = (8192, 20) if device.type == "cuda" else (512, 4)
    one = torch.randn((side, side), device=device, dtype=dtype)
    other = torch.randn((side, side), device=device, dtype=dtype)

    def run() -> None:
        for _ in range(times):
            one @ other
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run, 2.0 * side**3 * times
