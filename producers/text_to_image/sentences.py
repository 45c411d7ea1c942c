"""Sentences as a text encoder reads them: tokenized, padded to one length, cut if they are too long."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from feature_repo.errors import InvalidInputError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

POOLING_LAYERS = frozenset({"pooler", "head"})
"""Names of the layers after the states: of BERT and Chinese-CLIP, and of SigLIP."""
MAX_CHARACTERS = 2000
"""Longest sentence that is accepted. Beyond the tokenizer's length a sentence is cut; this is a mistake."""


@dataclass(frozen=True)
class TokenizedSentences:
    """n tokenized sentences, padded to one length."""

    input_ids: torch.Tensor
    """int64 [n, length]."""
    attention_mask: torch.Tensor
    """int64 [n, length], 1 for a token and 0 for padding."""
    cut: tuple[int, ...]
    """Indices of the sentences that were cut, ascending."""

    def __len__(self) -> int:
        return len(self.input_ids)


def check_sentences(sentences: Sequence[str]) -> None:
    """Check sentences that a user gave.

    Raises:
        InvalidInputError: there is none, one is empty or blank, has more than MAX_CHARACTERS or is not UTF-8.
    """
    if not sentences:
        raise InvalidInputError("no sentence was given; expected at least one")
    for number, sentence in enumerate(sentences, start=1):
        if not sentence.strip():
            raise InvalidInputError(f"sentence {number} is empty; expected what the picture shall show")
        if len(sentence) > MAX_CHARACTERS:
            raise InvalidInputError(
                f"sentence {number} has {len(sentence):,} characters; expected at most {MAX_CHARACTERS:,}"
            )
        if any("\ud800" <= character <= "\udfff" for character in sentence):  # bytes of an argument, or of JSON
            raise InvalidInputError(f"sentence {number} is not UTF-8; expected text")


def tokenize_sentences(tokenizer: Any, sentences: Sequence[str]) -> TokenizedSentences:
    """Tokenize sentences as Stable Diffusion does: padded, and cut if they are longer than `model_max_length`.

    Args:
        tokenizer: a tokenizer of transformers with a finite `model_max_length`.
        sentences: n sentences; an empty one is allowed, it is the sentence of unconditional generation.
    """
    length = tokenizer.model_max_length
    padded = tokenizer(list(sentences), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    # A sentence of exactly `length` tokens is complete, so only those that fill it are tokenized again.
    full = [i for i, count in enumerate(padded.attention_mask.sum(dim=1).tolist()) if count == length]
    cut = tuple(i for i in full if len(tokenizer(sentences[i], truncation=False, verbose=False).input_ids) > length)
    return TokenizedSentences(padded.input_ids, padded.attention_mask, cut)


def encode_tokens(text_encoder: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return text states [n, length, width] as StableDiffusionPipeline computes them; gradients flow through.

    Args:
        text_encoder: a text model. It gets the attention mask only if its configuration has `use_attention_mask`:
            Stable Diffusion's CLIP attends to padding, other encoders must not.
        input_ids: int64 [n, length].
        attention_mask: int64 [n, length].
    """
    mask = attention_mask if getattr(text_encoder.config, "use_attention_mask", None) else None
    states: torch.Tensor = text_encoder(input_ids, attention_mask=mask)[0]
    return states


def enable_gradients(text_encoder: Any) -> None:
    """Put a text encoder into training mode, with gradients for all weights that its states depend on.

    A pooling layer gets none, because no state depends on it: several processes that train together demand a gradient
    of every weight that may have one.
    """
    text_encoder.train()
    for name, weight in text_encoder.named_parameters():
        weight.requires_grad_(POOLING_LAYERS.isdisjoint(name.split(".")))


def encode_sentences(pipeline: "StableDiffusionPipeline", sentences: Sequence[str]) -> torch.Tensor:
    """Return the text states of sentences [n, length, width], on the device of the text encoder."""
    tokens, device = tokenize_sentences(pipeline.tokenizer, sentences), pipeline.text_encoder.device
    return encode_tokens(pipeline.text_encoder, tokens.input_ids.to(device), tokens.attention_mask.to(device))


def describe_cut(sentences: Sequence[str], tokens: TokenizedSentences) -> str | None:
    """Return a line that counts the sentences that were cut and names the first; None if none was."""
    if not tokens.cut:
        return None
    first = sentences[tokens.cut[0]]
    return (
        f"{len(tokens.cut):,} of {len(tokens):,} sentences are longer than the {tokens.input_ids.shape[1]} tokens that "
        f"the text encoder reads and were cut; the first is `{first[:60]}{'...' if len(first) > 60 else ''}`"
    )
