"""Load an encoder from a checkpoint directory or a hub name."""

from functools import partial

from feature_repo.errors import InvalidInputError
from producers.encoders import checkpoint_files, clip_family, sentence
from producers.encoders.adapted import encoder as adapted
from producers.encoders.assembled.encoder import load_encoder as load_assembled
from producers.encoders.assembled.model import AssembledConfig
from producers.encoders.checkpoint_version import compute_version, resolve_checkpoint
from producers.encoders.encoder import Encoder
from producers.encoders.runtime import choose_runtime

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
    version = compute_version(path_or_name, folder)
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
