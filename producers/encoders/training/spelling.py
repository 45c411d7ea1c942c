"""Tokens to a line of text, for tokenizers that keep no record of where spaces were (ours: Chinese has none)."""

from collections.abc import Sequence
from typing import Any

import torch


def word_beginnings(tokenizer: Any, titles: Sequence[str]) -> torch.Tensor | None:
    """Whether each token, in most of the titles it is in, begins a word; bool [vocabulary].

    None where the tokenizer spells a line itself.
    """
    if tokenizer.backend_tokenizer.decoder is not None:
        return None
    balance = [0] * len(tokenizer)
    for title, encoding in zip(titles, tokenizer.backend_tokenizer.encode_batch(list(titles)), strict=True):
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if end > start:
                balance[token] += 1 if start == 0 or not _latin(title[start - 1]) else -1
    return torch.tensor([count >= 0 for count in balance])


def spell(tokenizer: Any, tokens: Sequence[int], begins: torch.Tensor) -> str:
    """The line that the tokens stand for: a space stands before a Latin word that follows one."""
    if tokenizer.backend_tokenizer.decoder is not None:
        return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()
    line = ""
    for token in tokens:
        if token in tokenizer.all_special_ids:
            continue
        piece = tokenizer.convert_ids_to_tokens(token)
        line += f" {piece}" if begins[token] and line and _latin(line[-1]) and _latin(piece[0]) else piece
    return line


def _latin(letter: str) -> bool:
    return letter.isascii() and letter.isalnum()
