"""A slow decoder of one packed row, written from the table in row_format.py, to check encode.py and decode.py."""

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


def read_row(row: bytes, fields: list[dict[str, Any]], words: dict[str, list[str]]) -> dict[str, Any]:
    """Return the features of a row by name, and its "event", "created" and "fingerprint"."""
    event, created, fingerprint, stored = struct.unpack_from("<qqII", row)
    assert stored == checksum(row)
    values: dict[str, Any] = {"event": event, "created": created, "fingerprint": fingerprint}
    offset = 24 + (len(fields) + 7) // 8
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
            value, offset = read_numbers(row, offset, code, length if is_list else 1, storage)
            if not is_list:
                value = words[name][value[0]] if storage == "dictionary" and not null else value[0]
            values[name] = None if null else value
        else:
            varying.append((name, base, is_list, code, storage, null, struct.unpack_from("<I", row, offset)[0]))
            offset += 4
    for name, base, is_list, code, storage, null, size in varying:
        if code:
            value, offset = read_numbers(row, offset, code, size, storage) if size else ([], offset)
        elif is_list:
            value, offset = read_texts(row, offset, size, base)
        else:
            value, offset = decode_text(row[offset : offset + size], base), offset + size
        values[name] = None if null else value
    assert row[offset:] == bytes(-offset % 8)
    return values


def read_numbers(row: bytes, offset: int, code: str, count: int, storage: str) -> tuple[list[Any], int]:
    scale = 1.0
    if storage == "int8":
        (scale,) = struct.unpack_from("<f", row, offset)
        offset += 4
    values = struct.unpack_from(f"<{count}{code}", row, offset)
    return [float(np.float32(v * scale)) if storage == "int8" else v for v in values], offset + struct.calcsize(
        f"<{count}{code}"
    )


def decode_text(data: bytes, base: str) -> Any:
    return data.decode() if base in TEXTS else data


def read_texts(row: bytes, offset: int, size: int, base: str) -> tuple[list[Any], int]:
    end = offset + size
    if not size:
        return [], end
    (count,) = struct.unpack_from("<I", row, offset)
    lengths = struct.unpack_from(f"<{count}I", row, offset + 4)
    offset += 4 + 4 * count
    items = []
    for length in lengths:
        items.append(decode_text(row[offset : offset + length], base))
        offset += length
    assert offset == end
    return items, end
