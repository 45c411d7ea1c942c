"""Files of MUGE, a Chinese benchmark of product retrieval and captions. The project contains none of its data.

    {split}_imgs.tsv       image id, tab, picture in base64 (URL-safe or standard), one picture a line
    {split}_texts.jsonl    {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345, 517602]}
    {split}_queries.jsonl  {"query_id": 8428, "query_text": "...", "item_ids": [...]}, without answers in the test split
    {split}.tsv            pictures of the captions, as above; ids are any text
    {split}.jsonl          {"image_id": "8cf9ce", "text": ["...", "..."]}: captions, or predictions of captions
    predictions            {"text_id": 8428, "image_ids": [10 different ids]} or {"query_id": 8428, "item_ids": [...]}

Names may begin with MR_ (retrieval) or IC_ (captions). Readers append every malformed line to a list with its number,
and go on; `json_lines.require_well_formed` raises.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from feature_repo.errors import NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_lines import Malformed, read_lines, read_objects, refuse_line

SPLITS = ("train", "valid", "test")
TOP_K = 10
"""Different image ids of a prediction."""
TEXT_KEYS, QUERY_KEYS = ("text_id", "text", "image_ids"), ("query_id", "query_text", "item_ids")
"""The two forms of a query's line: id, text, true images."""
PICTURES, QUERIES = ("{split}_imgs.tsv",), ("{split}_texts.jsonl", "{split}_queries.jsonl")
CAPTION_PICTURES, CAPTIONS = ("{split}.tsv",), ("{split}.jsonl",)
"""Names of the files, without the prefix."""
PREFIXES = {PICTURES: "MR_", QUERIES: "MR_", CAPTION_PICTURES: "IC_", CAPTIONS: "IC_"}


@dataclass(frozen=True)
class Query:
    """One line of a file of queries."""

    id: int
    text: str
    image_ids: tuple[int, ...]
    """The true images; empty if the file does not have them."""
    keys: tuple[str, str, str] = TEXT_KEYS
    """Form of the line: TEXT_KEYS or QUERY_KEYS."""


def find_file(folder: Path, split: str, names: tuple[str, ...]) -> Path | None:
    """Return the file of a split, with or without its prefix; None if there is none.

    Args:
        folder: folder of the data set.
        split: one of SPLITS, or any other name.
        names: PICTURES, QUERIES, CAPTION_PICTURES or CAPTIONS.
    """
    candidates = (folder / (prefix + name.format(split=split)) for prefix in ("", PREFIXES[names]) for name in names)
    return next((file for file in candidates if file.is_file()), None)


def require_file(folder: Path, split: str, names: tuple[str, ...]) -> Path:
    """Return what `find_file` does.

    Raises:
        NotFoundError: there is no such file.
    """
    file = find_file(folder, split, names)
    if file is None:
        expected = " or ".join(name.format(split=split) for name in names)
        raise NotFoundError(f"{folder}: no {expected}; expected the files of MUGE's split {split}")
    return file


def read_pictures(file: Path, malformed: Malformed) -> Iterator[tuple[str, bytes]]:
    """Yield id and encoded bytes of each picture, one line at a time. A second picture of one id is malformed.

    The pictures are not decoded.
    """
    seen: set[str] = set()
    for number, line in read_lines(file, malformed):
        image_id, tab, text = line.partition("\t")
        content = _decode(text) if tab and image_id.strip() else None
        if content is None:
            reason = "expected an image id, a tab and a picture in base64"
        elif image_id in seen:
            reason = f"image id {image_id} occurs twice"
        else:
            seen.add(image_id)
            yield image_id, content
            continue
        malformed.append(refuse_line(file, number, reason, line))


def read_queries(file: Path, malformed: Malformed) -> list[Query]:
    """Return the queries of a file in either form, in its order."""
    queries: dict[int, Query] = {}
    for number, line, row in read_objects(file, malformed):
        keys = TEXT_KEYS if TEXT_KEYS[0] in row else QUERY_KEYS
        query_id, text, image_ids = (row.get(key) for key in keys)
        image_ids = [] if image_ids is None else image_ids
        if not _is_integer(query_id):
            reason = f"{keys[0]} is missing or not an integer; expected {', '.join(TEXT_KEYS)}"
        elif not isinstance(text, str) or not text.strip():
            reason = f"{keys[1]} is missing or blank"
        elif not isinstance(image_ids, list) or not all(map(_is_integer, image_ids)):
            reason = f"{keys[2]} is not a list of integers"
        elif query_id in queries:
            reason = f"{keys[0]} {query_id} occurs twice"
        else:
            queries[query_id] = Query(query_id, text, tuple(image_ids), keys)
            continue
        malformed.append(refuse_line(file, number, reason, line))
    return list(queries.values())


def read_predictions(file: Path, malformed: Malformed) -> dict[int, tuple[int, ...]]:
    """Return the image ids predicted for each query, best first."""
    predictions: dict[int, tuple[int, ...]] = {}
    for number, line, row in read_objects(file, malformed):
        id_key, _, ids_key = TEXT_KEYS if TEXT_KEYS[0] in row else QUERY_KEYS
        query_id, ids = row.get(id_key), row.get(ids_key)
        if not _is_integer(query_id):
            reason = f"{id_key} is missing or not an integer; expected {TEXT_KEYS[0]} and {TEXT_KEYS[2]}"
        elif not isinstance(ids, list) or not all(map(_is_integer, ids)):
            reason = f"{ids_key} is not a list of integers"
        elif len(ids) != TOP_K or len(set(ids)) != TOP_K:
            reason = f"{ids_key} has {len(ids)} ids, {len(set(ids))} of them different; expected {TOP_K} different ids"
        elif query_id in predictions:
            reason = f"{id_key} {query_id} occurs twice"
        else:
            predictions[query_id] = tuple(ids)
            continue
        malformed.append(refuse_line(file, number, reason, line))
    return predictions


def read_captions(file: Path, malformed: Malformed) -> dict[str, tuple[str, ...]]:
    """Return the texts of each picture: references, or one predicted caption. Ids are text; integers become text."""
    captions: dict[str, tuple[str, ...]] = {}
    for number, line, row in read_objects(file, malformed):
        image_id, texts = row.get("image_id"), row.get("text")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(image_id, str | int) or isinstance(image_id, bool) or image_id == "":
            reason = "image_id is missing, or neither a text nor an integer"
        elif not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            reason = "text is missing, or neither a text nor a list of texts"
        elif str(image_id) in captions:
            reason = f"image_id {image_id} occurs twice"
        else:
            captions[str(image_id)] = tuple(texts)
            continue
        malformed.append(refuse_line(file, number, reason, line))
    return captions


def write_predictions(file: Path, queries: Sequence[Query], image_ids: Mapping[int, Sequence[int]]) -> None:
    """Write predictions as they are submitted, one line a query in the form of its own line; all or nothing.

    Args:
        file: an existing one is replaced.
        queries: the queries, in the order of the lines.
        image_ids: for each query its TOP_K different images, best first.
    """
    with replace_atomically(file) as unfinished, unfinished.open("w", encoding="utf-8") as stream:
        for query in queries:
            values = (query.id, query.text, list(image_ids[query.id]))
            stream.write(json.dumps(dict(zip(query.keys, values, strict=True)), ensure_ascii=False) + "\n")


def _decode(text: str) -> bytes | None:
    """Return base64 text as bytes; None if it is none, or empty."""
    try:
        return base64.b64decode(text.strip().translate(str.maketrans("-_", "+/")), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
