"""Titles as one row of ids: first the words of the shop, at fixed positions, then the tokens of the text tower.

    [word, word, ..., 0, 0 | token, token, ...]
     words_length positions  as many as the title has

The words are pieces of a byte-pair encoding learned from the shop's titles. Position 0 of their vocabulary is padding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producers.encoders import checkpoint_files
from producers.encoders.tokens import tokenize

WORDS_LENGTH = 48
"""Different words of a title that are read; further ones are left out."""
WORDS_FOLDER, TEXT_FOLDER = "words", "text"
"""Folders of the two tokenizers in a checkpoint."""


class PairTokenizer:
    """A tokenizer of words and, if there is a text tower, the text tower's own, with the call of transformers."""

    backend_tokenizer = None
    padding_side = "right"
    pad_token_id = 0

    def __init__(self, words: Any, text: Any | None, *, length: int, prompt: str, lower: bool, is_padded: bool) -> None:
        """Join two tokenizers.

        Args:
            words: tokenizer of the shop's words, from `tiny_clip.train_tokenizer`.
            text: tokenizer of the text tower; None without one.
            length: largest number of tokens of the text tower; 0 without one.
            prompt: put before every text for the text tower.
            lower: whether the text tower reads lower case.
            is_padded: whether the text tower has no mask and reads padding up to `length`.
        """
        self.words, self.text = words, text
        self.length, self.prompt, self.lower, self.is_padded = length, prompt, lower, is_padded
        self.model_max_length = WORDS_LENGTH + length

    def __len__(self) -> int:
        """Return the size of the larger vocabulary."""
        return max(len(self.words), len(self.text) if self.text is not None else 0)

    def __call__(self, texts: Sequence[str], **options: Any) -> dict[str, list[list[int]]]:
        """Return the rows of texts as `input_ids`, of different lengths; `options` of transformers are ignored."""
        words = self.encode_words(texts).tolist()
        if self.text is None:
            return {"input_ids": words}
        prompted = [self.prompt + text for text in texts]
        tokens = tokenize(self.text, [text.lower() for text in prompted] if self.lower else prompted, self.length)
        rows = [
            tokens.ids[start:end].tolist() for start, end in zip(tokens.starts[:-1], tokens.starts[1:], strict=True)
        ]
        if self.is_padded:
            fill = [self.text.pad_token_id or 0]
            is_left = self.text.padding_side == "left"
            rows = [
                fill * (self.length - len(row)) + row if is_left else row + fill * (self.length - len(row))
                for row in rows
            ]
        return {"input_ids": [left + right for left, right in zip(words, rows, strict=True)]}

    def encode_words(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the different words of each text in their order, int64 [n, WORDS_LENGTH], filled up with 0."""
        special = set(self.words.all_special_ids)
        rows = np.zeros((len(texts), WORDS_LENGTH), np.int64)
        core = self.words.backend_tokenizer
        core.no_padding()
        core.no_truncation()
        for row, encoded in zip(rows, core.encode_batch_fast(list(texts)), strict=True):
            ids = [token for token in dict.fromkeys(encoded.ids) if token not in special][:WORDS_LENGTH]
            row[: len(ids)] = ids
        return rows

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return a text of some ids: of the text tower's vocabulary if there is one, else of the words."""
        tokenizer = self.words if self.text is None else self.text
        known = [int(token) % len(tokenizer) for token in ids]
        return str(tokenizer.decode(known, skip_special_tokens=skip_special_tokens))

    def save_pretrained(self, folder: Path) -> None:
        """Write both tokenizers into WORDS_FOLDER and TEXT_FOLDER of a folder."""
        self.words.save_pretrained(folder / WORDS_FOLDER)
        if self.text is not None:
            self.text.save_pretrained(folder / TEXT_FOLDER)


def read_tokenizer(folder: Path, config: Any) -> PairTokenizer:
    """Return the tokenizer of an assembled checkpoint.

    Args:
        folder: the checkpoint.
        config: its `AssembledConfig`.

    Raises:
        CorruptDataError: a tokenizer is missing, unreadable, or does not fit the model.
    """
    text = config.text
    return PairTokenizer(
        checkpoint_files.read_tokenizer(folder / WORDS_FOLDER, config.words),
        checkpoint_files.read_tokenizer(folder / TEXT_FOLDER, text["config"]["vocab_size"]) if text else None,
        length=text["length"] if text else 0,
        prompt=text["prompt"] if text else "",
        lower=bool(text and text["lower"]),
        is_padded=bool(text and not text["has_mask"]),
    )
