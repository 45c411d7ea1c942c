"""The manifest of an index: its encoder version, segments, and the versions of the tables that it has read.

It is replaced atomically, after the files that it names are complete. Files that it does not name are removed.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from feature_repo.errors import CorruptDataError, EncoderMismatchError, NotFoundError, VitrineError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.json_text import parse_json

FILE = "manifest.json"
FORMAT = 1
REBUILD = "run: produce index --rebuild"


@dataclass(frozen=True)
class Manifest:
    """What an index consists of."""

    encoder_version: str
    """The encoder of the vectors, as `name@fingerprint`."""
    generation: int
    """Number of this state of the index, from 1."""
    segments: tuple[str, ...]
    """Folders of the segments, the main one first."""
    flags: str
    """File of the flags of all rows."""
    files: dict[str, int]
    """Size in bytes of every file, by its path in the folder of the index."""
    sources: dict[str, int] = field(default_factory=dict)
    """Delta table -> its version that the index has read."""
    word_model: str | None = None
    """File of the word model, in the folder of the index."""
    recall: dict[str, Any] = field(default_factory=dict)
    """Measured recall of the main segment by vector, see `recall.measure_recall`."""
    format: int = FORMAT
    """Version of this layout."""


def read_manifest(folder: Path, encoder_version: str | None = None) -> Manifest:
    """Read the manifest of an index, and check the sizes of its files.

    Args:
        folder: of the index.
        encoder_version: the encoder whose vectors are wanted; None takes any.

    Raises:
        NotFoundError: there is no index.
        EncoderMismatchError: the index is of another encoder version.
        CorruptDataError: the manifest cannot be read, or a file is missing or has another size.
    """
    file = folder / FILE
    if not file.is_file():
        raise NotFoundError(f"no index at {folder}; run: produce index")
    try:
        values = parse_json(file.read_text())
        if not all(isinstance(values[name], dict) for name in ("files", "sources", "recall")):
            raise TypeError("files, sources and recall must be objects")
        manifest = Manifest(**values | {"segments": tuple(values["segments"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"{file}: the manifest cannot be read ({error}); {REBUILD}") from error
    if manifest.format != FORMAT:
        raise CorruptDataError(f"{file}: format {manifest.format}, expected {FORMAT}; {REBUILD}")
    if encoder_version is not None and manifest.encoder_version != encoder_version:
        raise EncoderMismatchError(
            f"{folder}: the index is of encoder {manifest.encoder_version}, but {encoder_version} was asked for; "
            "run produce index for that version"
        )
    for name, size in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            actual = f"has {path.stat().st_size:,} bytes" if path.is_file() else "is missing"
            raise CorruptDataError(f"{path} {actual}, expected {size:,} bytes; {REBUILD}")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make a state of an index the current one, and remove the files and folders that it does not name."""
    with replace_atomically(folder / FILE) as unfinished:
        unfinished.write_text(json.dumps(asdict(manifest), indent=1))
    kept = {FILE, manifest.flags, manifest.word_model, *manifest.segments}
    for path in folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def list_sizes(folder: Path, names: list[str]) -> dict[str, int]:
    """Return the size of every file of some files and folders, by path in `folder`."""
    paths = [
        path
        for name in names
        for path in ([folder / name] if (folder / name).is_file() else (folder / name).rglob("*"))
    ]
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(paths) if path.is_file()}


def read_encoder_version(folder: Path) -> str | None:
    """Return the encoder version of the index in a folder; None if there is none, or it is damaged."""
    try:
        return read_manifest(folder).encoder_version
    except VitrineError:
        return None


def remove_index(folder: Path) -> None:
    """Remove a folder with all its files, if it exists."""
    if folder.exists():
        shutil.rmtree(folder)
