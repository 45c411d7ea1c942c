"""Texts as the token ids that an exported text tower reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import CorruptDataError
from feature_repo.exported.files import TOKENIZER_FILE, WORDS_FILE, TextDescription

MAX_CHARACTERS = 2_000
"""Characters of a text that are tokenized; towers read far fewer tokens."""

FEW = 16
"""Up to this number, texts are tokenized one by one: waking the tokenizer's own threads takes longer."""

Ids = NDArray[np.int64]


class TextInput:
    """Tokenizes texts for one text tower. Safe to share between threads."""

    def __init__(self, description: TextDescription, tokenizer: Any | None, words: Any | None) -> None:
        """Wrap tokenizers of the library `tokenizers`; `open_text_input` reads them.

        Args:
            description: how a row is made.
            tokenizer: of the text tower, which truncates; None without a text tower.
            words: of the shop's words; None without them.
        """
        self._description = description
        self._tokenizer = tokenizer
        self._words = words
        unknown = {} if tokenizer is None else {tokenizer.token_to_id(token) for token in ("[UNK]", "<unk>")}
        self._without_meaning = {*description.special_ids, *unknown} - {None}

    def prepare(self, texts: Sequence[str]) -> dict[str, Ids]:
        """Return the inputs of the text tower by name, int64 [n, length] each, for n > 0 texts in their order.

        Long texts are truncated. The length is that of the longest row, or fixed if the tower reads no mask.
        """
        description = self._description
        rows = self._tokenize(texts)
        longest = max(map(len, rows))
        if self._words is None:
            longest = max(1, longest)
        length = longest if description.has_mask else description.length
        start = description.words_length
        ids = np.full((len(rows), start + length), description.pad_id, np.int64)
        mask = np.zeros(ids.shape, np.int64)
        ids[:, :start], mask[:, :start] = self._select_words(texts), 1
        for number, row in enumerate(rows):
            place = slice(start + length - len(row), None) if description.pads_left else slice(start, start + len(row))
            ids[number, place], mask[number, place] = row, 1
        return {"input_ids": ids, "attention_mask": mask} if description.has_mask else {"input_ids": ids}

    def knows(self, text: str) -> bool:
        """Return whether a token or a word of a text is known, special ones aside."""
        if self._words is not None and self._select_words([text]).any():
            return True
        if self._tokenizer is None:
            return False
        return not self._without_meaning.issuperset(self._tokenizer.encode(self._shape(text)).ids)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text for the text tower; none without one."""
        if self._tokenizer is None:
            return [[] for _ in texts]
        prompt = self._shape(self._description.prompt)
        return _encode(self._tokenizer, [prompt + self._shape(text) for text in texts])

    def _shape(self, text: str) -> str:
        return text[:MAX_CHARACTERS].lower() if self._description.lower else text[:MAX_CHARACTERS]

    def _select_words(self, texts: Sequence[str]) -> Ids:
        """Return the different words of each text in their order, int64 [n, words_length], filled up with 0."""
        width = self._description.words_length
        rows = np.zeros((len(texts), width), np.int64)
        if self._words is not None:
            special = set(self._description.special_word_ids)
            encoded = _encode(self._words, [text[:MAX_CHARACTERS] for text in texts])
            for row, one in zip(rows, encoded, strict=True):
                ids = [word for word in dict.fromkeys(one) if word not in special][:width]
                row[: len(ids)] = ids
        return rows


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text."""
    if len(texts) <= FEW:
        return [tokenizer.encode(text).ids for text in texts]
    return [one.ids for one in tokenizer.encode_batch(texts)]


def open_text_input(folder: Path, description: TextDescription) -> TextInput:
    """Read the tokenizers of an export.

    Raises:
        CorruptDataError: a file is missing or damaged.
    """
    names = {TOKENIZER_FILE: description.length, WORDS_FILE: description.words_length}
    tokenizer, words = (_read_tokenizer(folder / name) if needed else None for name, needed in names.items())
    return TextInput(description, tokenizer, words)


def _read_tokenizer(file: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare exceptions
        message = " ".join(str(error).split())[:200]
        raise CorruptDataError(f"{file}: not readable ({message}); run produce export again") from error
