"""Texts as token ids, in arrays: one call of the tokenizer for all, padded batch by batch without Python per row."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tokens:
    """Token ids of n texts, behind one another; `tokens[rows]` are those of some rows."""

    def __init__(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        self.ids = ids
        self.starts = starts
        """[n + 1]."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n]."""
        return np.diff(self.starts)

    def padded(
        self, rows: NDArray[np.int64], pad: int, *, to: int | None = None, left: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and mask [rows, longest or `to`] of some rows: 1 for a token, 0 for padding."""
        lengths = self.lengths[rows]
        longest = to or int(lengths.max(initial=1))
        places = np.arange(longest)
        mask = places >= longest - lengths[:, None] if left else places < lengths[:, None]
        ids = np.full(mask.shape, pad, np.int64)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids[mask] = self.ids[np.repeat(self.starts[:-1][rows], lengths) + within]
        return ids, mask.astype(np.int64)


def tokenize(tokenizer: Any, texts: Sequence[str], longest: int) -> Tokens:
    """Ids of texts, special tokens included; those longer than `longest` tokens are cut at their end."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:  # one of Python
        found = tokenizer(
            list(texts), truncation=True, max_length=longest, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
    else:  # what the call above does of it, without a dictionary and a list of masks for each text
        core.no_padding()
        core.enable_truncation(longest, direction=tokenizer.truncation_side)
        found = [each.ids for each in core.encode_batch_fast(list(texts))]
    lengths = np.fromiter(map(len, found), np.int64, len(found))
    ids = np.fromiter(chain.from_iterable(found), np.int64, int(lengths.sum()))
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]))


def read_text_length(config: Any, tokenizer: Any) -> int:
    """Most tokens the text tower reads."""
    positions = config.max_position_embeddings
    if "roberta" in config.model_type:  # its first positions stand for padding
        positions -= config.pad_token_id + 1
    return min(positions, tokenizer.model_max_length)
