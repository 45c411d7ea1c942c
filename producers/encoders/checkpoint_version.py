"""The folder, name, version and training products of a checkpoint, read without loading a model or importing torch."""

import hashlib
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from feature_repo.errors import InvalidInputError, NotFoundError, UnavailableError
from feature_repo.schema import PRODUCT_ID
from producers.encoders.licence import MODEL_CARD

ENCODER_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files that an encoder is read from: configurations, vocabularies, weights. The fingerprint covers these."""
OTHER_RUNTIMES = ("onnx/*", "openvino/*")
"""Files that the fingerprint leaves out and that are not downloaded."""
HUB_TIMEOUT_SECONDS = 5.0
"""Seconds that the hub may take to answer, before it counts as out of reach."""
NAME_FILE = "encoder_name"
"""File of a checkpoint with the encoder's name. The fingerprint leaves it out: a name changes no vector."""
TRAINING_PRODUCTS_FILE = "training_products.parquet"
"""File beside a checkpoint that `produce encoder` trained: the products that it learned from, as column product_id."""


def read_version(path_or_name: str) -> str:
    """Return the version of a checkpoint, `name@fingerprint`. No model is loaded.

    Args:
        path_or_name: as for `load`.

    Raises:
        NotFoundError: there is neither such a directory nor such a hub checkpoint.
        UnavailableError: there is no such directory, the hub cannot be reached, and nothing was downloaded earlier.
        InvalidInputError: its NAME_FILE holds no valid name.
    """
    return compute_version(path_or_name, resolve_checkpoint(path_or_name))


def compute_version(path_or_name: str, folder: Path) -> str:
    """Return `name@fingerprint` of a checkpoint that `resolve_checkpoint` found in a folder."""
    name = read_name(folder) if Path(path_or_name).is_dir() else path_or_name
    return f"{name}@{fingerprint(folder)}"


def check_name(name: str) -> str:
    """Return the name of an encoder as it is.

    Raises:
        InvalidInputError: it has other characters than letters, digits, `.`, `_`, `-` and `/`, or none.
    """
    if not re.fullmatch(r"[\w./-]+", name):
        raise InvalidInputError(f"{name!r} is no name of an encoder; expected letters, digits, `.`, `_`, `-` and `/`")
    return name


def read_name(folder: Path) -> str:
    """Return the name of the encoder in a checkpoint directory: that in its NAME_FILE, else the directory's own.

    Raises:
        InvalidInputError: NAME_FILE holds no valid name.
    """
    file = folder / NAME_FILE
    return check_name(file.read_text().strip()) if file.is_file() else folder.resolve().name


def read_training_products(folder: Path) -> pa.ChunkedArray | None:
    """Return the ids of the products that the checkpoint in a folder was trained on; None if that is not known.

    Args:
        folder: a checkpoint, or the parts that `producers.encoders.run` wrote; need not exist.
    """
    file = folder / TRAINING_PRODUCTS_FILE
    return pq.read_table(file)[PRODUCT_ID] if file.is_file() else None


def resolve_checkpoint(path_or_name: str) -> Path:
    """Return the directory of that path, or else a local copy of the hub checkpoint of that name, downloaded if needed.

    A directory is returned without a look at its files. Of a hub checkpoint only ENCODER_FILES and the model card of
    the newest revision are downloaded. If the hub cannot be reached, an earlier download is returned.

    Args:
        path_or_name: a directory, or a hub name such as `openai/clip-vit-base-patch32`.

    Raises:
        NotFoundError: there is no such directory, and no such checkpoint on the hub.
        UnavailableError: there is no such directory, the hub cannot be reached within HUB_TIMEOUT_SECONDS, and nothing
            was downloaded earlier.
    """
    if Path(path_or_name).is_dir():
        return Path(path_or_name)
    try:
        return Path(
            snapshot_download(
                path_or_name,
                allow_patterns=[*ENCODER_FILES, MODEL_CARD],
                ignore_patterns=list(OTHER_RUNTIMES),
                etag_timeout=HUB_TIMEOUT_SECONDS,
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise NotFoundError(f"{path_or_name}: neither a directory here nor a checkpoint on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnavailableError(
            f"{path_or_name}: no such directory, and no hub could be reached to download a checkpoint of that name; "
            "name a directory that holds one"
        ) from error


def fingerprint(folder: Path) -> str:
    """Return 12 hex digits of a SHA-256 over the names and contents of ENCODER_FILES, subfolders included.

    The files are taken in the order of their paths, those in the folders of OTHER_RUNTIMES left out. A folder without
    such files has a fingerprint too, the same for all such folders.
    """
    digest = hashlib.sha256()
    for file in sorted({file for pattern in ENCODER_FILES for file in folder.rglob(pattern)}):
        name = file.relative_to(folder)
        if name.parts[0] in {pattern.split("/")[0] for pattern in OTHER_RUNTIMES}:
            continue
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        digest.update(name.as_posix().encode() + b"\0" + content)
    return digest.hexdigest()[:12]
