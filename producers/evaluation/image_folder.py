"""Pictures and texts in Hugging Face's image-folder form: pictures, and metadata.jsonl beside them.

{"file_name": "train/0001.jpg", "text": "a red dress"}     one picture a line; `text` may be a list of texts
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from feature_repo.errors import NotFoundError
from feature_repo.files.json_lines import Malformed, read_objects, refuse_line, require_well_formed

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class FolderPicture:
    """One picture."""

    file_name: str
    """Path in the folder, with /. It identifies the picture."""
    path: Path
    texts: tuple[str, ...]
    """Texts of the picture; empty if the line has none."""
    other: Mapping[str, Any] = field(default_factory=dict)
    """The further keys of its line."""


def read_image_folder(folder: Path) -> list[FolderPicture]:
    """Return the pictures in the order of metadata.jsonl. They are not opened.

    Raises:
        NotFoundError: there is no metadata.jsonl.
        InvalidInputError: a line is malformed: no JSON object, no `file_name`, a `text` that is neither a text nor a
            list of texts, a file outside of the folder, or one that occurs twice.
    """
    file = folder / METADATA
    if not file.is_file():
        raise NotFoundError(f'{folder}: no {METADATA}; expected lines like {{"file_name": "1.jpg", "text": "..."}}')
    malformed: Malformed = []
    pictures: dict[str, FolderPicture] = {}
    for number, line, row in read_objects(file, malformed):
        name, texts = row.get("file_name"), row.get("text")
        texts = [] if texts is None else [texts] if isinstance(texts, str) else texts
        if not isinstance(name, str) or not name:
            reason = "no file_name"
        elif "\0" in name:
            reason = "file_name has a NUL character"
        elif PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            reason = f"file_name {name} is outside of the folder"
        elif name in pictures:
            reason = f"file_name {name} occurs twice"
        elif not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            reason = "text is blank, or neither a text nor a list of texts"
        else:
            other = {key: value for key, value in row.items() if key not in ("file_name", "text")}
            pictures[name] = FolderPicture(name, folder / name, tuple(texts), other)
            continue
        malformed.append(refuse_line(file, number, reason, line))
    require_well_formed(malformed)
    return list(pictures.values())
