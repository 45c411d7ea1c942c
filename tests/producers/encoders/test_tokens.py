"""Padding of token ids, compared with that of the tokenizer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.encoders.tokens import tokenize
from tests.producers.encoders import checkpoints

TOKENIZER = checkpoints.tokenizer()


@given(
    st.lists(st.text("红色连衣裙男童鞋x", max_size=30), min_size=1, max_size=6),
    st.sampled_from(["left", "right"]),
    st.sampled_from([None, 24]),
)
def test_padded_rows_equal_those_of_the_tokenizer_in_any_order(texts: list[str], side: str, to: int | None) -> None:
    rows = np.random.default_rng(len(texts)).permutation(len(texts))
    expected = TOKENIZER(
        [texts[row] for row in rows],
        padding="longest" if to is None else "max_length",
        padding_side=side,
        truncation=True,
        max_length=24,
        return_tensors="np",
    )
    ids, mask = tokenize(TOKENIZER, texts, 24).pad(rows, 0, length=to, left=side == "left")
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])


def test_rows_are_padded_to_the_longest_of_them() -> None:
    tokens = tokenize(TOKENIZER, ["红", "红色连衣裙", "蓝"], 24)
    assert len(tokens) == 3
    assert tokens.pad(np.array([0, 2]), 0)[0].shape == (2, 3)


@pytest.mark.parametrize("left", [False, True])
def test_a_text_without_tokens_is_all_padding(left: bool) -> None:
    tokens = tokenize(lambda texts, **_: {"input_ids": [[] for _ in texts]}, ["", ""], 24)
    ids, mask = tokens.pad(np.array([0, 1]), 7, left=left)
    assert ids.tolist() == [[7], [7]]
    assert mask.tolist() == [[0], [0]]
