"""The loss by which a new text encoder learns to match the original one: what the UNet's cross-attention makes of both.

    || attention(q, original states) - attention(q, new states) ||^2 / || attention(q, original states) ||^2

is averaged over the cross-attention layers, as in IAP ("Efficient Cross-Lingual Transfer for Chinese Stable Diffusion
with Images as Pivots", arXiv 2305.11540). The queries q are those of the UNet on a noisy picture, conditioned on the
original's sentence. The states need no alignment token by token: the layers see each as a set, so that the two
sentences may differ in length and order of words. Only the new encoder gets gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.json_lines import Malformed, read_objects, refuse_line, require_well_formed
from producers.text_to_image.checkpoint import hash_tensors
from producers.text_to_image.sentences import encode_tokens, tokenize_sentences


@dataclass(frozen=True)
class ParallelSentence:
    """One meaning in two languages."""

    text: str
    """In the language of the new encoder."""
    original_text: str
    """In the language of the original encoder."""
    file_name: str | None = None
    """The picture that it describes, in its folder; None takes any picture."""


@dataclass(frozen=True)
class AttentionCall:
    """A call of one cross-attention layer."""

    layer: Any
    queries: torch.Tensor
    """What attends: [n, cells, width]."""
    output: torch.Tensor
    """[n, cells, width]."""


def read_parallel_sentences(file: Path) -> list[ParallelSentence]:
    """Read lines {"text": "红色裙子", "original_text": "a red dress"}, such as those of a folder's metadata.jsonl.

    A `file_name` names the picture that both describe.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: a line is malformed or lacks a sentence, or there is none.
    """
    if not file.is_file():
        raise NotFoundError(f'{file}: no such file; expected lines {{"text": "...", "original_text": "..."}}')
    malformed: Malformed = []
    sentences = []
    for number, line, row in read_objects(file, malformed):
        text, original, name = row.get("text"), row.get("original_text"), row.get("file_name")
        if not all(isinstance(one, str) and one.strip() for one in (text, original)):
            malformed.append(refuse_line(file, number, "no text, or no original_text", line))
        elif name is not None and not isinstance(name, str):
            malformed.append(refuse_line(file, number, "file_name is no text", line))
        else:
            sentences.append(ParallelSentence(str(text), str(original), name))
    require_well_formed(malformed)
    if not sentences:
        raise InvalidInputError(f"{file}: the file is empty; expected one pair of sentences a line")
    return sentences


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


def compute_match_loss(
    original: Any,
    swapped: Any,
    pairs: Sequence[ParallelSentence],
    noisy_latents: torch.Tensor,
    timesteps: torch.Tensor,
) -> torch.Tensor:
    """Return the loss of a batch, a scalar; gradients flow into the text encoder of `swapped` only.

    Args:
        original: the pipeline before the swap; its text encoder is the teacher, its UNet runs.
        swapped: the pipeline whose text encoder learns.
        pairs: n pairs of sentences.
        noisy_latents: [n, channels, height, width].
        timesteps: the noise level of each, int64 [n].
    """
    device = noisy_latents.device
    with torch.no_grad():
        states = encode_texts(original, [pair.original_text for pair in pairs], device)
        calls = record_cross_attention(original.unet, noisy_latents, timesteps, states)
    return compare_attention(calls, encode_texts(swapped, [pair.text for pair in pairs], device))


def encode_texts(pipeline: Any, texts: Sequence[str], device: torch.device) -> torch.Tensor:
    """Return the states [n, length, width] of texts; gradients flow if the text encoder has any."""
    tokens = tokenize_sentences(pipeline.tokenizer, texts)
    return encode_tokens(pipeline.text_encoder, tokens.input_ids.to(device), tokens.attention_mask.to(device))


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
