"""Load an encoder from a checkpoint directory or a hub name."""

import re
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from feature_repo.errors import InvalidInputError, NotFoundError, UnavailableError
from feature_repo.schema import PRODUCT_ID
from producers.encoders import checkpoint_files, clip_family, sentence
from producers.encoders.adapted import encoder as adapted
from producers.encoders.assembled.encoder import load_encoder as load_assembled
from producers.encoders.assembled.model import AssembledConfig
from producers.encoders.encoder import Encoder
from producers.encoders.licence import MODEL_CARD
from producers.encoders.runtime import choose_runtime

HUB_TIMEOUT_SECONDS = 5.0
"""Seconds that the hub may take to answer, before it counts as out of reach."""
NAME_FILE = "encoder_name"
"""File of a checkpoint with the encoder's name. The fingerprint leaves it out: a name changes no vector."""
TRAINING_PRODUCTS_FILE = "training_products.parquet"
"""File beside a checkpoint that `produce encoder` trained: the products that it learnt from, as column product_id."""
SUPPORTED = (
    "expected CLIP, Chinese-CLIP, SigLIP, SigLIP2, BLIP, VisionTextDualEncoder, "
    "or a sentence encoder with its modules.json"
)


def load(
    path_or_name: str, *, device: str | None = None, dtype: str | None = None, is_compiled: bool | None = None
) -> Encoder:
    """Load an encoder from a checkpoint directory or by hub name. Its version is `name@fingerprint`.

    The name of a directory is in its file NAME_FILE; without the file it is that of the directory, links resolved and
    without its parents. That of a hub checkpoint is the hub name.

    Args:
        path_or_name: a directory if one of that path exists, else a hub name.
        device: where the model runs, such as "cpu" or "cuda:0"; None takes the first GPU, or the CPU if there is none.
        dtype: float32, bfloat16 or float16; None takes bfloat16 on a GPU and float32 on a CPU.
        is_compiled: whether the model is compiled by `torch.compile`; None compiles it on a GPU.

    Raises:
        UsageError: there is no such dtype.
        NotFoundError: there is neither such a directory nor such a hub checkpoint.
        UnavailableError: there is no such directory, the hub cannot be reached, and nothing was downloaded earlier.
        InvalidInputError: the directory is no checkpoint, or one of an unsupported architecture; or its NAME_FILE holds
            no valid name.
        CorruptDataError: weights, tokenizer or image processor are missing, unreadable, or do not fit each other.
    """
    folder = resolve_checkpoint(path_or_name)
    version = _compute_version(path_or_name, folder)
    runtime = choose_runtime(device, dtype, is_compiled)
    if sentence.is_sentence_encoder(folder):
        return sentence.load_encoder(folder, version, runtime)
    family = checkpoint_files.read_json(folder / "config.json").get("model_type")
    if family == AssembledConfig.model_type:
        return load_assembled(folder, version, runtime)
    if family == adapted.MODEL_TYPE:
        return adapted.load_encoder(folder, version, partial(load, device=device, dtype=dtype, is_compiled=is_compiled))
    if family in clip_family.FAMILIES:
        return clip_family.load_encoder(folder, family, version, runtime)
    raise InvalidInputError(f"{folder}: a checkpoint of model_type {family!r} gives no product vectors; {SUPPORTED}")


def read_version(path_or_name: str) -> str:
    """Return the version of a checkpoint, `name@fingerprint`. No model is loaded.

    Args:
        path_or_name: as for `load`.

    Raises:
        NotFoundError: there is neither such a directory nor such a hub checkpoint.
        UnavailableError: there is no such directory, the hub cannot be reached, and nothing was downloaded earlier.
        InvalidInputError: its NAME_FILE holds no valid name.
    """
    return _compute_version(path_or_name, resolve_checkpoint(path_or_name))


def _compute_version(path_or_name: str, folder: Path) -> str:
    """Return `name@fingerprint` of a checkpoint that `resolve_checkpoint` found in a folder."""
    name = read_name(folder) if Path(path_or_name).is_dir() else path_or_name
    return f"{name}@{checkpoint_files.fingerprint(folder)}"


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
                allow_patterns=[*checkpoint_files.ENCODER_FILES, MODEL_CARD],
                ignore_patterns=list(checkpoint_files.OTHER_RUNTIMES),
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
