"""A text read beside a picture: what matching and captioning have in common (Li et al. 2022, BLIP, section 3.1).

Torch's own decoder layers: the words look at each other, then at the image's tokens.
"""

from typing import Any

import torch
from torch import nn

LAYERS = 1
HEADS = 4
MOST_WIDTH = 256


class Reader(nn.Module):
    """Token ids and an image's tokens to one row a word."""

    def __init__(self, *, vocabulary: int, length: int, image_width: int, width: int | None = None) -> None:
        super().__init__()
        width = width or min(MOST_WIDTH, -(-image_width // HEADS) * HEADS)
        self.settings: dict[str, Any] = {
            "vocabulary": vocabulary,
            "length": length,
            "image_width": image_width,
            "width": width,
        }
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.image = nn.Sequential(nn.LayerNorm(image_width), nn.Linear(image_width, width))
        layer = nn.TransformerDecoderLayer(width, HEADS, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, LAYERS, norm=nn.LayerNorm(width))
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor, *, causal: bool) -> torch.Tensor:
        """float32 [n, length, width].

        Args:
            tokens: int64 [n, length]; mask: 1 where there is one [n, length].
            seen: the image's tokens [n, places, image_width].
            causal: whether a word sees only those before it.
        """
        length = tokens.shape[1]
        place = torch.arange(length, device=tokens.device)
        ahead = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1) if causal else None
        return self.layers(
            self.words(tokens) + self.places(place),
            self.image(seen),
            tgt_mask=ahead,
            tgt_key_padding_mask=mask == 0,
        )
