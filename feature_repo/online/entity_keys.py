"""The keys of packed rows: one key for each entity of each view.

    bytes   content
    6       the view: the first 6 characters of the URL-safe Base64 of the SHA-256 of the JSON [project, view]
    ...     the entity: the text of its join key; with several join keys, ordered by name, a uint16 length before each

The JSON is compact and not ASCII-escaped. Lengths are little-endian. The text of a join key is the UTF-8 of its
normalized form (feature_repo.arrow.text), so that ids that look equal are one entity for writers and readers; or its
bytes; or the decimal digits of an integer or of a timestamp in seconds. A view without entities has one row, whose
entity is empty. An entity of more than 400 bytes (LMDB allows keys of 511) is replaced by 0xFF and its BLAKE2b-256 of
32 bytes.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from numbers import Integral
from typing import Any

import pyarrow as pa

from feature_repo.arrow import text
from feature_repo.errors import InvalidInputError

PREFIX_SIZE = 6
"""Bytes at the start of each key that name the view."""
_MAX_ENTITY_SIZE = 400
_HASHED = b"\xff"
"""No UTF-8 starts with it. As the first byte of a length it means at least 255 bytes, more than the 33 of a hash."""
_DIGEST_SIZE = 32
_VISIBLE_ASCII = bytes(range(0x21, 0x7F))


@lru_cache
def make_prefix(project: str, view: str) -> bytes:
    """Return the PREFIX_SIZE bytes (ASCII) that the keys of a view start with.

    They are a hash, so two views may have the same: `StoreCatalog.register_view` refuses the second one.
    """
    name = json.dumps([project, view], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(hashlib.sha256(name.encode()).digest())[:PREFIX_SIZE]


def make_keys(prefix: bytes, join_keys: Sequence[Sequence[Any]]) -> list[bytes]:
    """Return the keys of n entities of a view, in their order, repeats included.

    Args:
        prefix: the PREFIX_SIZE bytes of the view, from `make_prefix`.
        join_keys: n values for each join key, the join keys ordered by name. Values are text, bytes or integers; 7 and
            "7" give the same key, and so do texts that are equal when they are normalized; bytes stay as they are. For
            a view without entities one join key with n empty texts. n may be 0.

    Raises:
        InvalidInputError: a value is missing or of another type, a boolean for instance.
        ValueError: the join keys have different numbers of values.
    """
    keys = _make_text_keys(prefix, join_keys[0]) if len(join_keys) == 1 else None
    if keys is None:
        keys = [prefix + entity for entity in _join_texts([list(map(_encode_value, values)) for values in join_keys])]
    max_size = PREFIX_SIZE + _MAX_ENTITY_SIZE
    if max(map(len, keys), default=0) > max_size:
        keys = [key if len(key) <= max_size else prefix + _hash_entity(key[PREFIX_SIZE:]) for key in keys]
    return keys


def split_key(key: bytes, join_key_count: int) -> list[bytes] | None:
    """Return the text of each join key of a key, ordered by name; None if the key has only their hash.

    Args:
        key: as `make_keys` returned it.
        join_key_count: join keys of the view, at least 1. For a view without entities pass 1: the text is empty.
    """
    entity = key[PREFIX_SIZE:]
    if len(entity) == 1 + _DIGEST_SIZE and entity.startswith(_HASHED):
        return None
    if join_key_count == 1:
        return [entity]
    texts = []
    while entity:
        end = 2 + int.from_bytes(entity[:2], "little")
        texts.append(entity[2:end])
        entity = entity[end:]
    return texts


def from_arrow(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Return the values of a join key's column in their order, as `make_keys` takes them.

    Integers become texts of digits. Timestamps become texts of whole seconds since 1970 UTC; fractions are dropped.
    Text and bytes stay as they are. Null becomes None, which `make_keys` refuses, as it refuses values of all other
    types: floats, booleans and dates, for instance.
    """
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return column.to_pylist()


def _make_text_keys(prefix: bytes, values: Sequence[Any]) -> list[bytes] | None:
    """Return the keys of texts, all encoded in one step; None if a value is no text, or none in UTF-8."""
    start = "\n" + prefix.decode()
    try:
        keys = (start + start.join(values)).encode()
    except (TypeError, UnicodeEncodeError):
        return None
    # Texts of visible ASCII characters are normalized already. Without those only the line feeds are left.
    if len(keys.translate(None, _VISIBLE_ASCII)) != len(values):
        keys = (start + start.join(text.normalize_id_list(values))).encode()
    return keys.split(b"\n")[1:] if len(values) else []


def _join_texts(texts: Sequence[Sequence[bytes]]) -> Iterable[bytes]:
    """Return the bytes of each entity from the texts of each join key."""
    if len(texts) == 1:
        return texts[0]
    return (b"".join(len(one).to_bytes(2, "little") + one for one in entity) for entity in zip(*texts, strict=True))


def _encode_value(value: Any) -> bytes:
    """Return the bytes of one value; raise InvalidInputError if it is missing or of another type."""
    if isinstance(value, str):
        with suppress(UnicodeEncodeError):  # half of a surrogate pair
            return text.normalize_id(value).encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return b"%d" % int(value)
    raise InvalidInputError(f"a join key is {value!r}; expected text, bytes or an integer")


def _hash_entity(entity: bytes) -> bytes:
    """Return what stands in a key for an entity that is too long."""
    return _HASHED + hashlib.blake2b(entity, digest_size=_DIGEST_SIZE).digest()
