"""Decoder that attends from a text to the tokens of an image, for matching and captioning.

BLIP, Li et al. 2022, section 3.1, with torch's decoder layers: self-attention over the words, then cross-attention to
the image's tokens.
"""

from typing import Any

import torch
from torch import nn

LAYERS = 1
"""Decoder layers."""
HEADS = 4
"""Attention heads of a layer."""
MAX_WIDTH = 256
"""Largest default width of the hidden states."""


class CrossAttentionDecoder(nn.Module):
    """Computes one hidden state for each token of a text, given the tokens of an image.

    The names of the attributes are the weight names in `language/model.safetensors`. `settings` holds the arguments
    that create the decoder again, by name.
    """

    def __init__(self, *, vocabulary: int, length: int, image_width: int, width: int | None = None) -> None:
        """Create the decoder with random weights.

        Args:
            vocabulary: number of tokens of the tokenizer.
            length: most tokens of a text, the start token included.
            image_width: width of the image tokens.
            width: width of the hidden states, a multiple of HEADS. None for `image_width` rounded up to such a
                multiple, at most MAX_WIDTH.
        """
        super().__init__()
        width = width or min(MAX_WIDTH, -(-image_width // HEADS) * HEADS)
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

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, image_tokens: torch.Tensor, *, causal: bool
    ) -> torch.Tensor:
        """Return the hidden state of each token, float [n, length, width].

        Args:
            tokens: token ids of the texts, int64 [n, length]; not longer than `length` of the constructor.
            mask: 1 where there is a token, 0 in the padding, int64 [n, length].
            image_tokens: tokens of the image of each text, float [n, image tokens, image_width].
            causal: whether a token attends only to itself and to earlier tokens; otherwise to all tokens. No token
                attends to the padding.
        """
        length = tokens.shape[1]
        position = torch.arange(length, device=tokens.device)
        is_later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1) if causal else None
        return self.layers(
            self.words(tokens) + self.places(position),
            self.image(image_tokens),
            tgt_mask=is_later,
            tgt_key_padding_mask=mask == 0,
        )
