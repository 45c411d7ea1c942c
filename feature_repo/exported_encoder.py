"""Towers that `produce export` wrote, run by ONNX Runtime: sentences to vectors without torch and without a checkpoint.

EXPORT/encoder.json                 version, widths, how texts and pictures are prepared
EXPORT/tokenizer.json               the tokenizer
EXPORT/text_tower/1/model.onnx      input_ids, attention_mask -> vectors
EXPORT/image_tower/1/model.onnx     pixels -> vectors
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError, NotFoundError

ENCODER_FILE, TOKENIZER_FILE = "encoder.json", "tokenizer.json"
MAX_CHARACTERS = 2_000
"""Characters of a text that are tokenized; towers read far fewer tokens."""

Vectors = NDArray[np.float32]


class ExportedTextTower:
    """The text tower of an exported encoder; `open_text_tower` reads it."""

    def __init__(self, settings: dict[str, Any], tokenizer: Any, session: Any) -> None:
        """Wrap the parts of an export: encoder.json, a tokenizer of the library `tokenizers`, an ONNX session."""
        self.encoder_version: str = settings["encoder_version"]
        self.dim: int = settings["dim"]
        self._settings = settings
        self._tokenizer = tokenizer
        self._session = session
        self._inputs = [one.name for one in session.get_inputs()]
        self._unknown_ids = {tokenizer.token_to_id(token) for token in ("[UNK]", "<unk>")} - {None}

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of texts, float32 [n, dim], in their order. A long text is truncated."""
        if not texts:
            return np.empty((0, self.dim), np.float32)
        rows = [one.ids for one in self._tokenizer.encode_batch([text[:MAX_CHARACTERS] for text in texts])]
        settings = self._settings
        length = settings["text_length"] if settings["pads_to_text_length"] else max(1, *map(len, rows))
        ids = np.full((len(rows), length), settings["pad_id"], np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        for number, row in enumerate(rows):
            place = slice(length - len(row), None) if settings["pads_left"] else slice(len(row))
            ids[number, place], mask[number, place] = row, 1
        values = {"input_ids": ids, "attention_mask": mask}
        return self._session.run(None, {name: values[name] for name in self._inputs})[0]

    def knows(self, text: str) -> bool:
        """Return whether the tokenizer knows a token of a text, special ones aside."""
        ids = set(self._tokenizer.encode(text[:MAX_CHARACTERS]).ids)
        return bool(ids - self._unknown_ids - (set(self._settings["special_ids"]) - self._unknown_ids))


def open_text_tower(folder: Path) -> ExportedTextTower:
    """Open the text tower of an export.

    Raises:
        NotFoundError: the folder is no export, or one that an earlier version wrote.
        CorruptDataError: a file is damaged.
    """
    import onnxruntime
    from tokenizers import Tokenizer

    file = folder / ENCODER_FILE
    if not file.is_file():
        raise NotFoundError(
            f"{folder}: no {ENCODER_FILE}; run: produce export --encoder ENCODER --output {folder} (an assembled "
            "encoder has none, because its tokenizer is written in Python)"
        )
    try:
        settings = json.loads(file.read_text())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(folder / "text_tower" / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return ExportedTextTower(settings, Tokenizer.from_file(str(folder / TOKENIZER_FILE)), session)
    except Exception as error:  # ONNX Runtime and tokenizers raise bare exceptions
        message = " ".join(str(error).split())[:200]
        raise CorruptDataError(f"{folder}: the export cannot be read ({message}); run produce export again") from error
