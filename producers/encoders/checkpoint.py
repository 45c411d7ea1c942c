"""A checkpoint directory or hub name to an encoder."""

from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from feature_repo.errors import VitrineError
from producers.encoders import checkpoint_files, clip_family, sentence
from producers.encoders.encoder import Encoder

HUB_SECONDS = 5.0
"""How long an unreachable hub is waited for."""
WANTED = (
    "wanted is CLIP, Chinese-CLIP, SigLIP, SigLIP2, BLIP, VisionTextDualEncoder, "
    "or a sentence encoder with its modules.json"
)


def load(path_or_name: str, *, device: str | None = None) -> Encoder:
    """See `producers.encoders.load`."""
    folder = resolve_checkpoint(path_or_name)
    name = folder.resolve().name if Path(path_or_name).is_dir() else path_or_name
    version = f"{name}@{checkpoint_files.fingerprint(folder)}"
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if sentence.is_sentence_encoder(folder):
        return sentence.open_folder(folder, version, place)
    family = checkpoint_files.read_json(folder / "config.json").get("model_type")
    if family in clip_family.FAMILIES:
        return clip_family.open_folder(folder, family, version, place)
    raise VitrineError(f"{folder}: a checkpoint of model_type {family!r} gives no product vectors; {WANTED}")


def resolve_checkpoint(path_or_name: str) -> Path:
    """The directory of that name, or the local copy of a hub checkpoint.

    Raises:
        VitrineError: there is neither.
    """
    return Path(path_or_name) if Path(path_or_name).is_dir() else _fetched(path_or_name)


def _fetched(name: str) -> Path:
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=list(checkpoint_files.READ),
                ignore_patterns=list(checkpoint_files.OTHER_RUNTIMES),
                etag_timeout=HUB_SECONDS,
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise VitrineError(f"{name}: neither a directory here nor a checkpoint on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise VitrineError(
            f"{name}: no such directory, and no hub could be reached to fetch a checkpoint of that name; "
            "name a directory that holds one"
        ) from error
