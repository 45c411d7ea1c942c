"""The key of a packed row: which entity, in which view.

    bytes   what
    6       the view: the first 6 characters of the URL-safe Base64 of the SHA-256 of the JSON [project, view]
    ...     the entity: one join key: its text; several: for each, by name, a uint16 length and its text

The text of a join key is its UTF-8, its bytes, or the decimal digits of an integer or of a timestamp in seconds. A
view without entities has one row, whose text is empty. An entity of more than 400 bytes (LMDB ends at 511) is
written as 0xFF and the 32 bytes of its BLAKE2b-256.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

import pyarrow as pa

from feature_repo.errors import VitrineError

PREFIX_SIZE = 6
_LONGEST = 400
_HASHED = b"\xff"
"""No UTF-8 begins so, and no length of the first of several texts in so short a key."""
_DIGEST_SIZE = 32


@lru_cache
def make_prefix(project: str, view: str) -> bytes:
    """What the keys of a view begin with."""
    text = json.dumps([project, view], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())[:PREFIX_SIZE]


def make_keys(prefix: bytes, join_keys: Sequence[Sequence[Any]]) -> list[bytes]:
    """The keys of n entities.

    Args:
        join_keys: of each join key, in the order of their names, n values: text, bytes or integers.

    Raises:
        VitrineError: a value is of another type, or missing.
    """
    found = _keys_of_texts(prefix, join_keys[0]) if len(join_keys) == 1 else None
    if found is None:
        found = [prefix + entity for entity in _entities([list(map(_text, values)) for values in join_keys])]
    if max(map(len, found), default=0) > PREFIX_SIZE + _LONGEST:
        found = [key if len(key) <= PREFIX_SIZE + _LONGEST else prefix + _digest(key[PREFIX_SIZE:]) for key in found]
    return found


def split_key(key: bytes, join_keys: int) -> list[bytes] | None:
    """The text of each of a key's join keys, by name; None if only their hash is left."""
    entity = key[PREFIX_SIZE:]
    if len(entity) == 1 + _DIGEST_SIZE and entity.startswith(_HASHED):
        return None
    if join_keys == 1:
        return [entity]
    found = []
    while entity:
        end = 2 + int.from_bytes(entity[:2], "little")
        found.append(entity[2:end])
        entity = entity[end:]
    return found


def from_arrow(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """A join key's column as `keys` takes it; timestamps as seconds."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return column.to_pylist()


def _keys_of_texts(prefix: bytes, values: Sequence[Any]) -> list[bytes] | None:
    """The keys of entities that are texts without a line feed: all encoded at one go. None for others."""
    start = "\n" + prefix.decode()
    try:
        found = (start + start.join(values)).encode().split(b"\n")[1:]
    except TypeError:
        return None
    return found if len(found) == len(values) else None


def _entities(texts: Sequence[Sequence[bytes]]) -> Iterable[bytes]:
    if len(texts) == 1:
        return texts[0]
    return (b"".join(len(text).to_bytes(2, "little") + text for text in entity) for entity in zip(*texts, strict=True))


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return b"%d" % int(value)
    raise VitrineError(f"a join key is {value!r}; wanted text, bytes or an integer")


def _digest(entity: bytes) -> bytes:
    return _HASHED + hashlib.blake2b(entity, digest_size=_DIGEST_SIZE).digest()
