"""A packed row, read byte by byte from the table in layout.py: the slow twin of decode.py."""

import struct
from typing import Any

import numpy as np

NUMBERS = {"bool": "?", "int32": "i", "int64": "q", "float": "f", "double": "d", "unix_timestamp": "q"}
STORED = {"float32": "f", "float16": "e", "int8": "b", "dictionary": "H"}
TEXTS = ("string", "json", "uuid", "time_uuid", "decimal")
BINARIES = ("bytes", "pdf_bytes", "image_bytes")
MASK = 2**64 - 1


def mix(i: int) -> int:
    x = i * 0x9E3779B97F4A7C15 & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return (x ^ x >> 31) | 1


def checksum(row: bytes) -> int:
    blank = row[:20] + bytes(4) + row[24:]
    words = struct.unpack(f"<{len(row) // 8}Q", blank)
    total = len(words) * mix(1) + sum(word * mix(i + 2) for i, word in enumerate(words))
    return (total & MASK) >> 32


def read(row: bytes, fields: list[dict[str, Any]], words: dict[str, list[str]]) -> dict[str, Any]:
    """All that a row says: its features by name, and "event", "created", "fingerprint"."""
    event, created, fingerprint, stated = struct.unpack_from("<qqII", row)
    assert stated == checksum(row)
    found: dict[str, Any] = {"event": event, "created": created, "fingerprint": fingerprint}
    at = 24 + (len(fields) + 7) // 8
    varying = []
    for i, field in enumerate(fields):
        name, storage, length = field["name"], field.get("storage", "plain"), field.get("length", 0)
        base = field["type"].removesuffix("_list").removesuffix("_set")
        if base not in (*NUMBERS, *TEXTS, *BINARIES):
            base = field["type"]
        is_list = base != field["type"]
        null = row[24 + i // 8] >> i % 8 & 1
        code = STORED.get(storage) or NUMBERS.get(base)
        if code and (not is_list or length):
            value, at = numbers(row, at, code, length if is_list else 1, storage)
            if not is_list:
                value = words[name][value[0]] if storage == "dictionary" and not null else value[0]
            found[name] = None if null else value
        else:
            varying.append((name, base, is_list, code, storage, null, struct.unpack_from("<I", row, at)[0]))
            at += 4
    for name, base, is_list, code, storage, null, size in varying:
        if code:
            value, at = numbers(row, at, code, size, storage) if size else ([], at)
        elif is_list:
            value, at = texts(row, at, size, base)
        else:
            value, at = text(row[at : at + size], base), at + size
        found[name] = None if null else value
    assert row[at:] == bytes(-at % 8)
    return found


def numbers(row: bytes, at: int, code: str, count: int, storage: str) -> tuple[list[Any], int]:
    scale = 1.0
    if storage == "int8":
        (scale,) = struct.unpack_from("<f", row, at)
        at += 4
    values = struct.unpack_from(f"<{count}{code}", row, at)
    return [float(np.float32(v * scale)) if storage == "int8" else v for v in values], at + struct.calcsize(
        f"<{count}{code}"
    )


def text(data: bytes, base: str) -> Any:
    return data.decode() if base in TEXTS else data


def texts(row: bytes, at: int, size: int, base: str) -> tuple[list[Any], int]:
    end = at + size
    if not size:
        return [], end
    (count,) = struct.unpack_from("<I", row, at)
    lengths = struct.unpack_from(f"<{count}I", row, at + 4)
    at += 4 + 4 * count
    found = []
    for length in lengths:
        found.append(text(row[at : at + length], base))
        at += length
    assert at == end
    return found, end
