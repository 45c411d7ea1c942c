"""Replace the text encoder of a text-to-image checkpoint by that of another language.

The UNet knows nothing of the new encoder's states: until `produce picture match` has taught the encoder to answer like
the old one, pictures follow no sentence.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from feature_repo.errors import ConflictError, InvalidInputError
from feature_repo.files.atomic_write import replace_atomically, require_new_folder
from producers.encoders import checkpoint_files
from producers.text_to_image.checkpoint import INDEX_FILE, open_pipeline
from producers.text_to_image.projected_text_encoder import ProjectedTextEncoder, ProjectedTextEncoderConfig
from producers.text_to_image.text_towers import StandaloneTextTower, copy_weights, open_text_tower

REPLACED = ("text_encoder", "tokenizer")
"""Folders that are written anew, beside INDEX_FILE. All else is copied byte for byte."""


@dataclass(frozen=True)
class SwapSummary:
    """What was put in place."""

    encoder: str
    """`name@fingerprint` of the new encoder."""
    old_class: str
    new_class: str
    tower_width: int
    attended_width: int
    """Width of the states that the UNet attends to."""
    length: int
    """Most tokens of a sentence."""

    def __str__(self) -> str:
        same = self.tower_width == self.attended_width
        width = f"width {self.tower_width}" if same else f"width {self.tower_width}, projected to {self.attended_width}"
        return (
            f"text encoder: {self.new_class} of {self.encoder} in place of {self.old_class}; {width}; "
            f"sentences up to {self.length} tokens\n"
            "not trained yet: pictures follow no sentence before `produce picture match`"
        )


def swap_text_encoder(
    model: Path, text_encoder: str, output: Path, *, project: bool = True, seed: int = 0
) -> SwapSummary:
    """Write a copy of a checkpoint with another text encoder and its tokenizer.

    If the encoder's states are as wide as what the UNet attends to, the copy has the plain class of transformers, and
    opens wherever the original does. Otherwise a linear projection follows, with random weights.

    Args:
        model: a checkpoint of Stable Diffusion 1.x or 2.x, or one of their classes.
        text_encoder: a checkpoint of Chinese-CLIP, or another whose text tower `open_text_tower` opens.
        output: a new folder.
        project: whether a projection is allowed.
        seed: of the projection's weights.

    Raises:
        ConflictError: `output` has content, or is in `model`.
        InvalidInputError: a checkpoint is of another class, or widths differ and `project` is False.
        NotFoundError: there is no such checkpoint.
        CorruptDataError: a checkpoint cannot be read.
    """
    require_new_folder(output)
    if model.resolve() in output.resolve().parents:
        raise ConflictError(f"{output} is in the checkpoint {model}, which stays as it is; name a folder elsewhere")
    pipeline = open_pipeline(model)
    attended, old_class = int(pipeline.unet.config.cross_attention_dim), type(pipeline.text_encoder).__name__
    tower = open_text_tower(text_encoder)
    if tower.width != attended and not project:
        raise InvalidInputError(
            f"{text_encoder}: its states are {tower.width} wide and the UNet of {model} attends to {attended}; allow a "
            f"projection, or take an encoder of width {attended}"
        )
    encoder = build_text_encoder(tower, attended, _measure_spread(pipeline), seed=seed)
    with checkpoint_files.explain_write_errors(output), replace_atomically(output) as unfinished:
        shutil.copytree(model, unfinished, ignore=_leave_out_replaced(model))
        _write_index(model, unfinished, encoder, tower.tokenizer)
        with checkpoint_files.explain_errors(unfinished, "new text encoder"):
            encoder.save_pretrained(unfinished / "text_encoder")
            tower.tokenizer.save_pretrained(unfinished / "tokenizer")
        open_pipeline(unfinished)
    return SwapSummary(
        tower.version, old_class, type(tower.model).__name__, tower.width, attended, tower.tokenizer.model_max_length
    )


def build_text_encoder(tower: StandaloneTextTower, attended_width: int, spread: float, *, seed: int) -> Any:
    """Return a text encoder whose states are `attended_width` wide: the tower itself, or a projection after it.

    Args:
        tower: the text tower; its configuration is changed.
        attended_width: width of the states.
        spread: root mean square of the projected states, as the UNet is used to it.
        seed: of the projection's weights.
    """
    if tower.width == attended_width:
        tower.model.config.use_attention_mask = tower.has_mask
        return tower.model
    config = ProjectedTextEncoderConfig(
        tower.model.config.to_dict(), attended_width, tower.tokenizer.model_max_length, tower.has_mask
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ProjectedTextEncoder(config).eval()
        copy_weights(tower.model, encoder.tower)
        ids = torch.tensor([tower.tokenizer("").input_ids])
        with torch.no_grad():
            scale = encoder.tower(input_ids=ids).last_hidden_state.square().mean().sqrt()
            nn.init.normal_(encoder.projection.weight, std=spread / (float(scale) * tower.width**0.5))
            nn.init.zeros_(encoder.projection.bias)
    return encoder


def _measure_spread(pipeline: Any) -> float:
    """Return the root mean square of the states of the empty sentence."""
    from producers.text_to_image.sentences import encode_sentences

    with torch.no_grad():
        return float(encode_sentences(pipeline, [""]).square().mean().sqrt())


def _leave_out_replaced(model: Path) -> Any:
    """Return the `ignore` of shutil.copytree that leaves out what is written anew at the top of the checkpoint."""
    return lambda folder, _: {*REPLACED, INDEX_FILE} if Path(folder) == model else set()


def _write_index(model: Path, output: Path, encoder: Any, tokenizer: Any) -> None:
    """Write model_index.json with the new classes and all other entries as they were."""
    index = json.loads((model / INDEX_FILE).read_text(encoding="utf-8"))
    library = type(encoder).__module__ if isinstance(encoder, ProjectedTextEncoder) else "transformers"
    index["text_encoder"] = [library, type(encoder).__name__]
    index["tokenizer"] = ["transformers", type(tokenizer).__name__]
    (output / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
