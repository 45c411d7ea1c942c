"""What a training starts from: the small model with a tokenizer of the shop's own titles, or any checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_repo.errors import VitrineError
from producers.encoders import checkpoint_files, clip_family, tiny_clip
from producers.encoders.checkpoint import load, resolve_checkpoint
from producers.encoders.geometry import Geometry
from producers.encoders.training.pairs import Pairs, Preparation
from producers.encoders.training.recipe import FINE_TUNING, FROM_NOTHING


@dataclass(frozen=True)
class Start:
    """A model that can be trained, and what belongs to it."""

    model: Any
    tokenizer: Any
    geometry: Geometry
    preparation: Preparation
    length: int
    """Most tokens of a text."""
    rate: float
    """Learning rate of the towers, if none is asked for."""
    version: str
    """Of the checkpoint it was read from."""
    save: Callable[[Path], None]

    @property
    def start(self) -> int:
        """The token before the first word."""
        tokens = (self.tokenizer.cls_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id)
        return int(next(token for token in tokens if token is not None))

    @property
    def end(self) -> int:
        """The token after the last word."""
        tokens = (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        return int(next(token for token in tokens if token is not None))

    def pairs(self, titles: Sequence[str], pixels: np.ndarray) -> Pairs:
        """Titles as tokens beside their pictures."""
        told = self.tokenizer(
            list(titles),
            padding="max_length" if self.preparation.padded else True,
            truncation=True,
            max_length=self.length,
            return_tensors="np",
            return_attention_mask=True,
        )
        return Pairs(
            pixels=pixels,
            tokens=told["input_ids"].astype(np.int64),
            mask=told["attention_mask"].astype(np.int64),
            same=np.unique(np.array(titles), return_inverse=True)[1],
            special=np.array(self.tokenizer.all_special_ids, np.int64),
            mask_token=self.tokenizer.mask_token_id,
        )


def from_nothing(titles: Sequence[str], device: torch.device) -> Start:
    """The small model, its weights drawn by torch's seed, its tokenizer learnt from the titles."""
    tokenizer = tiny_clip.train_tokenizer(list(titles))
    model = tiny_clip.build_model(len(tokenizer)).to(device)
    return Start(
        model=model,
        tokenizer=tokenizer,
        geometry=tiny_clip.GEOMETRY,
        preparation=Preparation(
            torch.full((1, 3, 1, 1), 1 / 127.5, device=device), torch.full((1, 3, 1, 1), -1.0, device=device)
        ),
        length=tiny_clip.TEXT_LENGTH,
        rate=FROM_NOTHING,
        version="small",
        save=lambda folder: tiny_clip.save_checkpoint(model, tokenizer, folder),
    )


def from_checkpoint(name: str, device: torch.device) -> Start:
    """An image-text checkpoint of any family that `load` opens.

    Raises:
        VitrineError: it cannot be opened, reads no pictures, or its processor does more than resize and cut.
    """
    encoder = load(name, device=str(device))
    if not isinstance(encoder, clip_family.DualEncoder):
        raise VitrineError(f"{name}: a sentence encoder has no image tower to train; name an image-text checkpoint")
    if encoder.geometry is None:
        raise VitrineError(f"{name}: its image processor does more than resize and cut, which training does not repeat")

    # An encoder's own model is made for speed: normalisations folded into convolutions, bfloat16 on a GPU.
    folder = resolve_checkpoint(name)
    family = checkpoint_files.read_json(folder / "config.json")["model_type"]
    model = checkpoint_files.read_model(clip_family.FAMILIES[family], folder).to(device)

    def save(place: Path) -> None:
        for part in (model, encoder.tokenizer, encoder.processor):
            part.save_pretrained(place)

    return Start(
        model=model,
        tokenizer=encoder.tokenizer,
        geometry=encoder.geometry,
        preparation=Preparation(encoder.scale, encoder.shift, padded=encoder.unmasked),
        length=encoder.text_length,
        rate=FINE_TUNING,
        version=encoder.version,
        save=save,
    )
