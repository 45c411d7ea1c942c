"""Files with one JSON object a line. Readers refuse a malformed line with its number and go on."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_repo.errors import InvalidInputError
from feature_repo.files.json_text import parse_json

SHOWN = 5
"""Malformed lines that an error names."""
MAX_CHARACTERS = 200
"""Characters of a malformed line that are kept."""


@dataclass(frozen=True)
class MalformedLine:
    """A line that does not have the expected form."""

    file: Path
    number: int
    """From 1."""
    reason: str
    line: str
    """At most MAX_CHARACTERS."""


Malformed = list[MalformedLine]


def read_lines(file: Path, malformed: Malformed) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line without its end. One that is blank or not UTF-8 is malformed.

    Args:
        file: the file, which is read as the lines are taken.
        malformed: gets the malformed lines.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        for number, content in enumerate(stream, start=1):
            try:
                line = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                malformed.append(refuse_line(file, number, "not UTF-8", repr(content[:MAX_CHARACTERS])))
                continue
            if line.strip():
                yield number, line
            else:
                malformed.append(refuse_line(file, number, "blank", line))


def read_objects(file: Path, malformed: Malformed) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, text and JSON object of each line; other lines are malformed. Arguments as in `read_lines`."""
    for number, line in read_lines(file, malformed):
        try:
            row = parse_json(line)
        except ValueError:
            malformed.append(refuse_line(file, number, "not JSON", line))
            continue
        if not isinstance(row, dict):
            malformed.append(refuse_line(file, number, "not a JSON object", line))
        elif "\\u" in line and _has_surrogate(row):
            malformed.append(refuse_line(file, number, "half of a surrogate pair, which is no character", line))
        else:
            yield number, line, row


def _has_surrogate(row: dict[str, Any]) -> bool:
    """Return whether the escape of half a pair stands alone: JSON allows it, and UTF-8 cannot hold it."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def refuse_line(file: Path, number: int, reason: str, line: str) -> MalformedLine:
    """Return a malformed line, cut to MAX_CHARACTERS."""
    return MalformedLine(file, number, reason, line[:MAX_CHARACTERS])


def require_well_formed(malformed: Malformed) -> None:
    """Raise an error that names the first SHOWN malformed lines.

    Raises:
        InvalidInputError: there is one.
    """
    if malformed:
        lines = "; ".join(f"line {one.number}: {one.reason}" for one in malformed[:SHOWN])
        more = f"; and {len(malformed) - SHOWN:,} more" if len(malformed) > SHOWN else ""
        raise InvalidInputError(f"{malformed[0].file}: {lines}{more}")
