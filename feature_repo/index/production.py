"""Which index is of the encoder version in production."""

from pathlib import Path

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.index.manifest import FILE, read_manifest
from feature_repo.index.rows import FOLDER, name_folder


def find_production_folder(local: Path, version: str | None) -> Path:
    """Return the folder of the index of the encoder version in production.

    Args:
        local: the folder of what stays on this machine.
        version: the version in production, see `production.read_version`. If it is None, as in a store that version 0.2
            and earlier wrote, there may be one index only.

    Raises:
        NotFoundError: there is no index of this version.
        EncoderMismatchError: the index in its folder is of another version.
        CorruptDataError: the index is damaged.
        InvalidInputError: no version is recorded, and there are several indexes.
    """
    root = local / FOLDER
    folders = [file.parent for file in root.glob(f"*/{FILE}")] if version is None else [root / name_folder(version)]
    if not folders:
        raise NotFoundError(f"no index under {root}; run: produce index")
    if len(folders) > 1:
        raise InvalidInputError(
            f"{root} has indexes of {len(folders)} encoder versions, and none is recorded as in production; run "
            "produce embeddings with one of them, which records it"
        )
    read_manifest(folders[0], version)
    return folders[0]
