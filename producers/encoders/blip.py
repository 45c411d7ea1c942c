"""BLIP checkpoints (Li et al. 2022): BlipModel, and the retrieval model, which has no call for either tower."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from feature_repo.errors import VitrineError
from producers.encoders import checkpoint_files


class BlipForImageTextRetrieval(transformers.BlipForImageTextRetrieval):
    """Transformers' own, with the two calls that the other families have; it keeps its name in config.json."""

    def get_image_features(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        """`pooler_output` [n, d], not of unit length, and `last_hidden_state`, from [n, 3, h, w]."""
        tokens = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return SimpleNamespace(pooler_output=self.vision_proj(tokens[:, 0]), last_hidden_state=tokens)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        """`pooler_output` [n, d], not of unit length, from token ids and mask [n, length]."""
        words = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(pooler_output=self.text_proj(words[:, 0]))


class Blip:
    """Opens whichever of the two a checkpoint holds."""

    @staticmethod
    def from_pretrained(folder: str, **options: Any) -> Any:
        """As transformers' method of that name.

        Raises:
            VitrineError: the checkpoint is of a BLIP that gives no vectors of texts (captioning, question answering).
        """
        named = checkpoint_files.read_json(Path(folder) / "config.json").get("architectures") or ["none named"]
        opens = {"BlipForImageTextRetrieval": BlipForImageTextRetrieval, "BlipModel": transformers.BlipModel}
        if named[0] not in opens:
            raise VitrineError(f"{named[0]} has no vectors of texts; wanted is {' or '.join(opens)}")
        return opens[named[0]].from_pretrained(folder, **options)
