"""Text towers of encoders: the part of a checkpoint that turns a sentence into the states of its tokens."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from feature_repo.errors import InvalidInputError
from producers.encoders import load
from producers.encoders.tokens import read_text_length
from producers.text_to_image.projected_text_encoder import is_buildable

MAX_TOKENS = 77
"""Most tokens of a sentence, as in Stable Diffusion."""
UNMASKED = ("clip_text_model",)
"""Model types whose tokens attend to earlier ones only, so that padding after them needs no mask."""


@dataclass(frozen=True)
class StandaloneTextTower:
    """A text model with its tokenizer."""

    model: PreTrainedModel
    """Of transformers; its output has `last_hidden_state` [n, length, width]."""
    tokenizer: Any
    """Its `model_max_length` is the number of tokens that are read, at most MAX_TOKENS."""
    has_mask: bool
    """Whether it must not attend to padding. Stable Diffusion's own encoder, CLIP, does."""
    version: str
    """`name@fingerprint` of the encoder that it comes from."""

    @property
    def width(self) -> int:
        """Width of a state."""
        return int(self.model.config.hidden_size)


def open_text_tower(path_or_name: str) -> StandaloneTextTower:
    """Open the text tower of an encoder: Chinese-CLIP, CLIP, our small encoder, a sentence encoder and others.

    Its states are those of the last layer, before any pooling. So the vectors' projection plays no part.

    Args:
        path_or_name: a checkpoint directory or hub name, as for `producers.encoders.load`.

    Raises:
        InvalidInputError: the encoder has no text model of transformers of its own, or one that reads changed texts.
        VitrineError: it cannot be opened.
    """
    encoder: Any = load(path_or_name, device="cpu", dtype="float32", is_compiled=False)
    model = encoder.model if not encoder.has_images else getattr(encoder.model, "text_model", None)
    if not isinstance(model, PreTrainedModel) or not is_buildable(model.config):
        raise InvalidInputError(
            f"{path_or_name}: an encoder of the class {type(encoder.model).__name__}, whose text model cannot be taken "
            "alone; expected Chinese-CLIP, CLIP, a sentence encoder, or one that `produce encoder` trained anew"
        )
    if getattr(encoder, "prompt", "") or getattr(encoder, "lower", False):
        raise InvalidInputError(
            f"{path_or_name}: the encoder puts a prompt before sentences or lowercases them, which a tokenizer alone "
            "does not do; expected one that reads sentences as they are"
        )
    tokenizer = encoder.tokenizer
    if not hasattr(transformers, type(tokenizer).__name__):
        raise InvalidInputError(
            f"{path_or_name}: its tokenizer is of the class {type(tokenizer).__name__}; expected one of transformers"
        )
    tokenizer.model_max_length = min(read_text_length(model.config, tokenizer), MAX_TOKENS)
    tokenizer.padding_side = "right"
    has_mask = encoder.has_mask and model.config.model_type not in UNMASKED
    return StandaloneTextTower(_complete(model), tokenizer, has_mask, encoder.version)


def _complete(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with a pooling layer of zeros if its class has one that this model lacks.

    No state depends on it, but `from_pretrained` would fill it with random numbers and warn.
    """
    if getattr(model, "pooler", True) is not None:
        return model
    complete = type(model)(model.config)
    for parameter in complete.pooler.parameters():
        torch.nn.init.zeros_(parameter)
    copy_weights(model, complete, but="pooler.")
    return complete.eval()


def copy_weights(source: PreTrainedModel, target: Any, but: str | None = None) -> None:
    """Copy all weights of `target` from a model that has them, and perhaps more.

    Args:
        source: where they are copied from.
        target: where they are copied to.
        but: prefix of weights of `target` that stay as they are; None for none.

    Raises:
        InvalidInputError: `source` lacks one.
    """
    missing = target.load_state_dict(source.state_dict(), strict=False).missing_keys
    if missing := [name for name in missing if but is None or not name.startswith(but)]:
        raise InvalidInputError(
            f"a text model of the class {type(source).__name__} lacks {len(missing)} weights, such as {missing[0]}"
        )
