"""An assembled checkpoint as an encoder: its towers and its heads can be called apart.

FOLDER/config.json, model.safetensors, preprocessor_config.json
FOLDER/words/     tokenizer of the shop's words
FOLDER/text/      tokenizer of the text tower, if there is one
FOLDER/fusion/    the space of fused vectors (whitening.py)
"""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor

from feature_repo.errors import CorruptDataError
from producers.encoders import checkpoint_files, whitening
from producers.encoders.assembled.model import AssembledConfig, AssembledModel
from producers.encoders.assembled.tokenizer import PairTokenizer, read_tokenizer
from producers.encoders.batches import BatchRunner, normalize_rows
from producers.encoders.clip_family import CPU_TEXT_BATCH, DualEncoder
from producers.encoders.encoder import Outputs, Pixels, Vectors
from producers.encoders.runtime import Runtime
from producers.encoders.tokens import Tokens, tokenize

CPU_IMAGE_BATCH = 16
"""Images per batch on a CPU, at 224 pixels: 64 take a third longer."""
ROWS_PER_PROJECTION = 4096
"""Outputs that pass through a head at once."""


class AssembledEncoder(DualEncoder):
    """An encoder of a pretrained image tower, perhaps a text tower, words and heads.

    It implements the protocols `Encoder` and `TowerEncoder`.
    """

    def __init__(
        self, model: AssembledModel, tokenizer: PairTokenizer, processor: Any, *, version: str, runtime: Runtime
    ) -> None:
        """Prepare a model for inference; `load_encoder` reads the parts from a checkpoint.

        Args:
            model: it is not changed.
            tokenizer: of the words and the text tower.
            processor: image processor that only resizes, crops and normalizes.
            version: `name@fingerprint`.
            runtime: where and how the model runs.
        """
        self.image_fingerprint = fingerprint_image_tower(model, processor)
        self.text_fingerprint = fingerprint_text_tower(model, tokenizer)
        self.image_width = int(model.config.image["width"])
        self.text_width = int(model.config.text["width"]) if model.config.text else 0
        threads = runtime.threads
        self._image_outputs = BatchRunner(runtime.batch_size(CPU_IMAGE_BATCH), threads, is_unit=False)
        self._text_outputs = BatchRunner(runtime.batch_size(CPU_TEXT_BATCH), threads, is_unit=False)
        self._image_output_tower = runtime.compile(self._pixels_to_outputs)
        self._text_output_tower = runtime.compile(self._tokens_to_outputs)
        family = AssembledConfig.model_type
        super().__init__(copy.deepcopy(model), tokenizer, processor, family=family, version=version, runtime=runtime)
        # Without a text tower that reads a mask, all rows have one length.
        self.has_mask = bool(model.config.text and model.config.text["has_mask"])
        self._images.size = self._image_outputs.size
        self.image_batch_size = 4 * threads * self._images.size

    def _measure_dim(self) -> int:
        """Return the width of a vector, without a call of a tower."""
        return int(self.model.config.projection_dim)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors float32 [n, dim] of texts, in order; NaN where the model gives none."""
        return self.project_texts(texts, self.encode_text_outputs(texts))

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        """Return unit vectors float32 [n, dim] of resized images, in order; NaN where the model gives none."""
        return self.project_images(self.encode_pixel_outputs(pixels))

    def encode_pixel_outputs(self, pixels: Pixels) -> Outputs:
        """Return the image tower's outputs, float16 [n, image_width], of resized images, in order.

        Args:
            pixels: RGB images resized by `geometry`, uint8 [n, height, width, 3].
        """
        if not len(pixels):
            return np.empty((0, self.image_width), np.float16)
        return self._image_outputs.run(self._encode_pixel_batch, pixels).astype(np.float16)

    def encode_text_outputs(self, texts: Sequence[str]) -> Outputs:
        """Return the text tower's outputs, float16 [n, text_width], in the order of the texts; [n, 0] without one."""
        if not texts or not self.text_width:
            return np.empty((len(texts), self.text_width), np.float16)
        tokens = tokenize(self.tokenizer, texts, self.text_length)
        outputs = self._text_outputs.run_shortest_first(
            lambda rows: self._encode_text_batch(tokens, rows), tokens.lengths
        )
        return outputs.astype(np.float16)

    def project_images(self, outputs: Outputs) -> Vectors:
        """Return unit vectors float32 [n, dim] of outputs [n, image_width]; NaN where an output is not finite."""
        return self._project(len(outputs), lambda part: self.model.image_head(self._to_float(outputs[part])))

    def project_texts(self, texts: Sequence[str], outputs: Outputs) -> Vectors:
        """Return unit vectors float32 [n, dim] of texts and the text tower's outputs of them [n, text_width].

        NaN where an output is not finite, or the text has neither an output nor a word that is known.
        """
        words = self.tokenizer.encode_words(texts)

        def join(part: slice) -> torch.Tensor:
            ids = torch.from_numpy(words[part]).to(self.device)
            return self.model.join_text(ids, self._to_float(outputs[part]) if self.text_width else None)

        return self._project(len(texts), join)

    def _project(self, count: int, project: Any) -> Vectors:
        rows = [np.empty((0, self.model.config.projection_dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, count, ROWS_PER_PROJECTION):
                part = slice(start, min(start + ROWS_PER_PROJECTION, count))
                rows.append(normalize_rows(project(part).float()).cpu().numpy())
        return np.concatenate(rows)

    def _to_float(self, outputs: Outputs) -> torch.Tensor:
        return torch.from_numpy(outputs.astype(np.float32)).to(self.device)

    def _encode_pixel_batch(self, pixels: Pixels) -> torch.Tensor:
        padded = self.runtime.pad(pixels, self._image_outputs.size)
        return self._image_output_tower(self.runtime.move(padded))[: len(pixels)]

    def _encode_text_batch(self, tokens: Tokens, rows: Any) -> torch.Tensor:
        padded = self.runtime.pad(rows, self._text_outputs.size)
        return self._text_output_tower(*map(self.runtime.move, self.text_inputs(tokens, padded)))[: len(rows)]

    def _pixels_to_outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.get_image_outputs(self.prepare_pixels(pixels))

    def _tokens_to_outputs(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.model.get_text_outputs(ids, mask)


def load_encoder(folder: Path, version: str, runtime: Runtime) -> AssembledEncoder:
    """Load an assembled checkpoint directory, with the space of its fused vectors if it has one.

    Args:
        folder: the checkpoint.
        version: `name@fingerprint`, which becomes the encoder's version.
        runtime: where and how the model runs.

    Raises:
        CorruptDataError: weights, tokenizers or image processor are missing, unreadable, or do not fit each other.
    """
    model = checkpoint_files.read_model(AssembledModel, folder)
    tokenizer = read_tokenizer(folder, model.config)
    if not (folder / "preprocessor_config.json").is_file():
        raise CorruptDataError(f"{folder}: the image processor is missing; preprocessor_config.json was expected")
    with checkpoint_files.explain_errors(folder, "image processor"):
        processor = AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, backend="pil")
    encoder = AssembledEncoder(model, tokenizer, processor, version=version, runtime=runtime)
    encoder.space = whitening.read_space(folder, encoder.dim)
    return encoder


def fingerprint_image_tower(model: AssembledModel, processor: Any) -> str:
    """Return 12 hex digits of a SHA-256 of everything that an image's output depends on."""
    settings = {name: model.config.image[name] for name in ("pooling", "width")}
    names = ("size", "crop_size", "do_center_crop", "resample", "rescale_factor", "image_mean", "image_std")
    own = {name: getattr(processor, name, None) for name in names}
    own = {name: dict(value) if name.endswith("size") and value else value for name, value in own.items()}
    return hash_tower(model.image_tower, [settings, own])


def fingerprint_text_tower(model: AssembledModel, tokenizer: PairTokenizer) -> str | None:
    """Return 12 hex digits of a SHA-256 of everything that a text's output depends on; None without a text tower."""
    if model.config.text is None or tokenizer.text is None:
        return None
    names = ("poolings", "length", "has_mask", "prompt", "lower")
    settings: list[Any] = [{name: model.config.text[name] for name in names}]
    vocabulary = sorted(tokenizer.text.get_vocab().items())
    return hash_tower(model.text_tower, [*settings, vocabulary])


def hash_tower(tower: torch.nn.Module, settings: list[Any]) -> str:
    """Return 12 hex digits of a SHA-256 of the weights and settings of a tower."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, weight in sorted(tower.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(memoryview(weight.detach().cpu().contiguous().flatten().numpy()).cast("B"))
    return digest.hexdigest()[:12]
