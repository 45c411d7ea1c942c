"""Token ids of texts in NumPy arrays: one tokenizer call for all texts, and padding without a Python loop over rows."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tokens:
    """Token ids of n texts of different lengths, concatenated; `len` gives n."""

    def __init__(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """Wrap ids.

        Args:
            ids: token ids of all texts, one text after the other.
            starts: where each text begins, and the end of the last [n + 1]; text i has the ids
                `ids[starts[i] : starts[i + 1]]`.
        """
        self.ids = ids
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of tokens of each text, special tokens included, int64 [n]."""
        return np.diff(self.starts)

    def pad(
        self, rows: NDArray[np.int64], pad_id: int, *, length: int | None = None, left: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ids and mask of some texts as matrices, shorter texts filled up with padding.

        Args:
            rows: numbers of the texts from 0, in any order, repeats allowed; may be empty.
            pad_id: id of the padding token.
            length: width of the result, at least the number of tokens of the longest of these texts. None takes that
                number, but at least 1.
            left: pad at the start of each row instead of its end.

        Returns:
            Ids and mask, int64 [rows, length] each, in the order of `rows`. The mask is 1 for a token, 0 for padding.

        Raises:
            ValueError: one of the texts has more than `length` tokens.
        """
        lengths = self.lengths[rows]
        width = length or int(lengths.max(initial=1))
        positions = np.arange(width)
        mask = positions >= width - lengths[:, None] if left else positions < lengths[:, None]
        ids = np.full(mask.shape, pad_id, np.int64)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        ids[mask] = self.ids[np.repeat(self.starts[:-1][rows], lengths) + within]
        return ids, mask.astype(np.int64)


def tokenize(tokenizer: Any, texts: Sequence[str], max_length: int) -> Tokens:
    """Return the token ids of texts in their order, special tokens included.

    Args:
        tokenizer: tokenizer of transformers. If it is a fast one, its settings of padding and truncation are changed.
        texts: the texts; repeats are tokenized again.
        max_length: most tokens of a text, special tokens included; longer texts are truncated, at the end unless the
            tokenizer has another `truncation_side`.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:  # a tokenizer written in Python
        rows = tokenizer(
            list(texts),
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
    else:  # the same, without a dictionary and a mask for each text
        core.no_padding()
        core.enable_truncation(max_length, direction=tokenizer.truncation_side)
        rows = [each.ids for each in core.encode_batch_fast(list(texts))]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return Tokens(ids, np.concatenate([[0], np.cumsum(lengths)]))


def read_text_length(config: Any, tokenizer: Any) -> int:
    """Return the largest number of tokens that a text tower reads, special tokens included.

    Args:
        config: configuration of the text tower, of transformers.
        tokenizer: the tokenizer of the text tower, whose own limit may be lower.
    """
    positions = config.max_position_embeddings
    if "roberta" in config.model_type:  # its first positions are reserved for padding
        positions -= config.pad_token_id + 1
    return min(positions, tokenizer.model_max_length)
