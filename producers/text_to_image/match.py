"""The loss by which a new text encoder learns to match the original one, on the outputs of the UNet's cross-attention.

    || attention(q, original states) - attention(q, new states) ||^2 / || attention(q, original states) ||^2

is averaged over the cross-attention layers, as in IAP ("Efficient Cross-Lingual Transfer for Chinese Stable Diffusion
with Images as Pivots", arXiv 2305.11540). The queries q are those of the UNet on a noisy picture, conditioned on the
original's sentence. The states need no alignment token by token: the layers see each as a set, so that the two
sentences may differ in length and order of words. Only the new encoder gets gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from feature_repo.errors import InvalidInputError
from producers.text_to_image.checkpoint import hash_tensors
from producers.text_to_image.sentences import encode_tokens

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


@dataclass(frozen=True)
class MatchingBatch:
    """n noisy latents, each with one sentence in both languages, on the device of the model."""

    noisy_latents: torch.Tensor
    """float32 [n, channels, height, width]."""
    timesteps: torch.Tensor
    """The noise level of each, int64 [n]."""
    original_ids: torch.Tensor
    """Of the original's tokenizer, int64 [n, length]."""
    original_mask: torch.Tensor
    """int64 [n, length]."""
    input_ids: torch.Tensor
    """Of the new tokenizer, int64 [n, another length]."""
    attention_mask: torch.Tensor
    """int64 [n, another length]."""


@dataclass(frozen=True)
class AttentionCall:
    """A call of one cross-attention layer."""

    layer: Any
    queries: torch.Tensor
    """What attends: [n, cells, width]."""
    output: torch.Tensor
    """[n, cells, width]."""


class MatchingModel(nn.Module):
    """The new text encoder as a module whose output is the loss; so that several processes can train it."""

    def __init__(self, original: "StableDiffusionPipeline", swapped: "StableDiffusionPipeline") -> None:
        """Wrap the text encoder of `swapped`, which training changes in place.

        Args:
            original: the pipeline before the swap; its text encoder is the teacher, and its UNet runs.
            swapped: the pipeline after it.
        """
        super().__init__()
        self.text_encoder = swapped.text_encoder
        self._frozen = (original.text_encoder, original.unet)  # in a tuple, so that they are no part of this module

    def forward(self, batch: MatchingBatch) -> torch.Tensor:
        """Return the loss, a scalar; gradients flow into the new text encoder only."""
        teacher, unet = self._frozen
        with torch.no_grad():
            states = encode_tokens(teacher, batch.original_ids, batch.original_mask)
            calls = record_cross_attention(unet, batch.noisy_latents, batch.timesteps, states)
        return compare_attention(calls, encode_tokens(self.text_encoder, batch.input_ids, batch.attention_mask))


def require_same_unet(original: Any, swapped: Any, name: str) -> None:
    """Check that two pipelines have the same UNet, so that what one attends to means the same to the other.

    Args:
        original: the pipeline before the swap.
        swapped: the pipeline after it.
        name: what an error calls the original.

    Raises:
        InvalidInputError: the UNets differ.
    """
    first, second = (hash_tensors(pipeline.unet.state_dict()) for pipeline in (original, swapped))
    if first != second:
        raise InvalidInputError(
            f"{name}: its UNet {first[:12]} is not that of the model to train, {second[:12]}; expected the checkpoint "
            "that `produce picture swap` started from"
        )


def record_cross_attention(
    unet: Any, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor
) -> list[AttentionCall]:
    """Run a UNet and return the calls of its cross-attention layers, in their order.

    Args:
        unet: of diffusers.
        latents: noisy, [n, channels, height, width].
        timesteps: int64 [n].
        states: text states [n, length, width].
    """
    from diffusers.models.attention_processor import Attention

    calls: list[AttentionCall] = []

    def record(layer: Any, inputs: tuple[Any, ...], options: dict[str, Any], output: torch.Tensor) -> None:
        if options.get("encoder_hidden_states") is not None:
            calls.append(AttentionCall(layer, inputs[0] if inputs else options["hidden_states"], output))

    layers = [module for module in unet.modules() if isinstance(module, Attention)]
    hooks = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    try:
        unet(latents, timesteps, encoder_hidden_states=states)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def compare_attention(calls: Sequence[AttentionCall], states: torch.Tensor) -> torch.Tensor:
    """Return the relative squared error of attending to other states, averaged over the layers: 0 if equal.

    Args:
        calls: of `record_cross_attention`; at least one.
        states: text states [n, another length, width].
    """
    errors = []
    for call in calls:
        output = call.layer(call.queries, encoder_hidden_states=states)
        target = call.output.float()
        errors.append((output.float() - target).square().mean() / target.square().mean())
    return torch.stack(errors).mean()
