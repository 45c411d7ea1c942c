"""The model that training starts from: a new tiny CLIP with a tokenizer learned from the titles, or a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_repo.errors import InvalidInputError
from feature_repo.images.geometry import Geometry
from producers.encoders import checkpoint_files, clip_family, tiny_clip
from producers.encoders.checkpoint import load
from producers.encoders.checkpoint_version import resolve_checkpoint
from producers.encoders.training.pairs import Preprocessor, TrainingPairs
from producers.encoders.training.recipe import FINE_TUNING_LEARNING_RATE, FROM_SCRATCH_LEARNING_RATE


@dataclass(frozen=True)
class InitialModel:
    """A model that can be trained, with its tokenizer and preprocessing."""

    model: Any
    """The Transformers model, on the device where it is trained."""
    tokenizer: Any
    """The Transformers tokenizer."""
    geometry: Geometry
    """The size to which images are resized and cropped before `preprocessor`."""
    preprocessor: Preprocessor
    """Turns pixels and tokens into the inputs of the model."""
    max_tokens: int
    """Most tokens of a text, special tokens included; longer texts are truncated."""
    learning_rate: float
    """Highest learning rate of the towers if the recipe gives none."""
    version: str
    """Encoder version of the checkpoint, or `small` for a new model."""
    save: Callable[[Path], None]
    """Writes model, tokenizer and image processor to a folder. The folder is created, or its files are replaced."""

    @property
    def start_token(self) -> int:
        """Id of the token before the first word: CLS, BOS or the padding, the first of these that the tokenizer has."""
        tokens = (self.tokenizer.cls_token_id, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id)
        return int(next(token for token in tokens if token is not None))

    @property
    def end_token(self) -> int:
        """Id of the token after the last word: SEP, EOS or the padding, the first of these that the tokenizer has."""
        tokens = (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id)
        return int(next(token for token in tokens if token is not None))

    def make_pairs(self, titles: Sequence[str], pixels: np.ndarray) -> TrainingPairs:
        """Tokenize titles and pair them with their images.

        Args:
            titles: the titles [n]; repeats are allowed. A title of more than `max_tokens` tokens is cut at its end.
            pixels: the images of the titles, resized by `geometry`, uint8 [n, height, width, 3]; not copied.

        Returns:
            The pairs, in the order of `titles`. The title ids count the different titles in sorted order, from 0.
        """
        encoded = self.tokenizer(
            list(titles),
            padding="max_length" if self.preprocessor.is_padded else True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="np",
            return_attention_mask=True,
        )
        return TrainingPairs(
            pixels=pixels,
            tokens=encoded["input_ids"].astype(np.int64),
            mask=encoded["attention_mask"].astype(np.int64),
            title_ids=np.unique(np.array(titles), return_inverse=True)[1],
            special_tokens=np.array(self.tokenizer.all_special_ids, np.int64),
            mask_token=self.tokenizer.mask_token_id,
        )


def create_model(titles: Sequence[str], device: torch.device) -> InitialModel:
    """Create a tiny CLIP with random weights, and a tokenizer learned from titles.

    Args:
        titles: the titles of the shop, in any language.
        device: where the weights go. They are drawn with torch's global seed.
    """
    tokenizer = tiny_clip.train_tokenizer(list(titles))
    model = tiny_clip.build_model(len(tokenizer)).to(device)
    return InitialModel(
        model=model,
        tokenizer=tokenizer,
        geometry=tiny_clip.GEOMETRY,
        preprocessor=Preprocessor(
            torch.full((1, 3, 1, 1), 1 / 127.5, device=device), torch.full((1, 3, 1, 1), -1.0, device=device)
        ),
        max_tokens=tiny_clip.TEXT_LENGTH,
        learning_rate=FROM_SCRATCH_LEARNING_RATE,
        version="small",
        save=lambda folder: tiny_clip.save_checkpoint(model, tokenizer, folder),
    )


def load_model(name: str, device: torch.device) -> InitialModel:
    """Load an image-text checkpoint to train it further; every family that `producers.encoders.load` opens can be.

    Args:
        name: directory, or hub name of a checkpoint that is downloaded if needed.
        device: where the weights go.

    Raises:
        VitrineError: the checkpoint does not exist or cannot be opened.
        InvalidInputError: the checkpoint has no image tower, or its image processor does more than resize and crop.
    """
    encoder = load(name, device=str(device))
    if not isinstance(encoder, clip_family.DualEncoder):
        raise InvalidInputError(
            f"{name}: a sentence encoder has no image tower to train; name an image-text checkpoint"
        )
    if encoder.geometry is None:
        raise InvalidInputError(
            f"{name}: its image processor does more than resize and crop, and training cannot repeat that; name "
            "another checkpoint"
        )

    # The model inside an encoder is optimized for inference: folded normalizations, bfloat16 on a GPU.
    folder = resolve_checkpoint(name)
    family = checkpoint_files.read_json(folder / "config.json")["model_type"]
    model = checkpoint_files.read_model(clip_family.FAMILIES[family], folder).to(device)

    def save(folder: Path) -> None:
        for part in (model, encoder.tokenizer, encoder.processor):
            part.save_pretrained(folder)

    return InitialModel(
        model=model,
        tokenizer=encoder.tokenizer,
        geometry=encoder.geometry,
        preprocessor=Preprocessor(encoder.scale, encoder.shift, is_padded=not encoder.has_mask),
        max_tokens=encoder.text_length,
        learning_rate=FINE_TUNING_LEARNING_RATE,
        version=encoder.version,
        save=save,
    )
