"""BLIP checkpoints (Li et al. 2022): BlipModel, and the retrieval model, which lacks a method for either tower."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from feature_repo.errors import InvalidInputError
from producers.encoders import checkpoint_files


class BlipForImageTextRetrieval(transformers.BlipForImageTextRetrieval):
    """The class of transformers, with the two methods of the other families.

    It keeps the name of its base class, because config.json names it.
    """

    def get_image_features(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """Compute the features of images.

        Args:
            pixel_values: images [n, 3, height, width], scaled and normalized as the checkpoint's image processor does.

        Returns:
            `pooler_output` [n, dim], not of unit length; `last_hidden_state` [n, tokens, width], the class token first.
        """
        tokens = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return SimpleNamespace(pooler_output=self.vision_proj(tokens[:, 0]), last_hidden_state=tokens)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """Compute the features of texts, from the vector of each one's first token.

        Args:
            input_ids: token ids, int64 [n, length].
            attention_mask: 1 for a token, 0 for padding [n, length].

        Returns:
            `pooler_output` [n, dim], not of unit length.
        """
        tokens = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(pooler_output=self.text_proj(tokens[:, 0]))


class Blip:
    """Loads either of the two BLIP models with text vectors, as config.json says; has no instances."""

    @staticmethod
    def from_pretrained(folder: str, **options: Any) -> Any:
        """Load the model of a checkpoint directory. If config.json lists several `architectures`, the first one counts.

        Args:
            folder: the checkpoint.
            options: further arguments of the `from_pretrained` of transformers.

        Returns:
            What that `from_pretrained` returns: the model, or a pair with a report if the options ask for one.

        Raises:
            InvalidInputError: there is no config.json, or the checkpoint is of a BLIP without text vectors (captioning,
                question answering).
            CorruptDataError: config.json is not JSON.
        """
        names = checkpoint_files.read_json(Path(folder) / "config.json").get("architectures") or ["none"]
        classes = {"BlipForImageTextRetrieval": BlipForImageTextRetrieval, "BlipModel": transformers.BlipModel}
        if names[0] not in classes:
            raise InvalidInputError(
                f"{folder}: a BLIP of architecture {names[0]} has no text vectors; expected {' or '.join(classes)}"
            )
        return classes[names[0]].from_pretrained(folder, **options)
