"""Every entity has a key, and no two entities share one."""

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.arrow.text import normalize_id
from feature_repo.errors import VitrineError
from feature_repo.online import entity_keys

PREFIX = entity_keys.make_prefix("shop", "looks")
TEXTS = st.text(max_size=6) | st.text("a\n", min_size=1, max_size=6) | st.sampled_from(["a" * 400, "b" * 401])
IDS = TEXTS | st.binary(max_size=6) | st.integers(-(2**63), 2**63)


def encode_slowly(value: Any) -> bytes:
    text = value if isinstance(value, bytes) else normalize_id(str(value)).encode()
    return text if len(text) <= 400 else b"\xff" + hashlib.blake2b(text, digest_size=32).digest()


@given(st.lists(TEXTS) | st.lists(IDS))
def test_a_key_is_the_prefix_and_the_text_of_the_join_key(ids: list[Any]) -> None:
    assert entity_keys.make_keys(PREFIX, [ids]) == [PREFIX + encode_slowly(one) for one in ids]


@given(st.lists(st.tuples(TEXTS.map(normalize_id), TEXTS.map(normalize_id)), unique=True))
def test_entities_of_several_join_keys_have_different_keys(entities: list[tuple[str, str]]) -> None:
    keys = entity_keys.make_keys(PREFIX, [[one for one, _ in entities], [other for _, other in entities]])
    assert len(set(keys)) == len(entities)


def test_texts_that_look_equal_have_one_key_and_bytes_stay_as_they_are() -> None:
    odd = ["p48", "p48 ", "\ufeffp48", "p\u200b48\n", b"p48 ", 7]
    assert entity_keys.make_keys(PREFIX, [odd]) == [PREFIX + one for one in [b"p48"] * 4 + [b"p48 ", b"7"]]
    assert len(set(entity_keys.make_keys(PREFIX, [odd[:4], ["u\xa0", "u", "\u3000u", "u"]]))) == 1


@pytest.mark.parametrize("value", [None, 1.5, True, "half of a pair: \ud83d"])
def test_a_value_that_cannot_be_a_join_key_is_refused(value: Any) -> None:
    with pytest.raises(VitrineError, match="a join key is"):
        entity_keys.make_keys(PREFIX, [["a", value]])
