"""What a checkpoint directory holds: configs, tokenizer, weights; each read or refused in one clear line.

Weights are read from safetensors alone, never from pickles, and code that comes with a checkpoint is never run.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from feature_repo.errors import VitrineError

READ = ("*.json", "*.txt", "*.model", "*.safetensors")
"""What an encoder is read from, and so what its fingerprint covers: configs, vocabularies, weights."""
OTHER_RUNTIMES = ("onnx/*", "openvino/*")
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def fingerprint(folder: Path) -> str:
    """12 hex digits of the SHA-256 of the names and contents of the files an encoder is read from."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in READ for file in folder.rglob(pattern)}):
        name = file.relative_to(folder)
        if name.parts[0] in {pattern.split("/")[0] for pattern in OTHER_RUNTIMES}:
            continue
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        digest.update(name.as_posix().encode() + b"\0" + content)
    return digest.hexdigest()[:12]


def read_json(file: Path) -> Any:
    """A JSON file of a checkpoint.

    Raises:
        VitrineError: it does not exist or is no JSON.
    """
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise VitrineError(f"{file.parent}: not a checkpoint, it has no {file.name}") from error
    except ValueError as error:
        raise VitrineError(f"{file}: not JSON ({error}); restore the checkpoint") from error


def read_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The checkpoint's tokenizer.

    Raises:
        VitrineError: it is missing, unreadable, or knows more tokens than `vocabulary`, the rows of the model's table.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        # transformers would make an empty tokenizer of some families without a word.
        raise VitrineError(f"{folder}: the tokenizer is missing; one of {', '.join(VOCABULARIES)} was expected")
    with explain_errors(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if len(tokenizer) > vocabulary:
        raise VitrineError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {vocabulary}: they do not belong together"
        )
    return tokenizer


def read_model(model_class: Any, folder: Path, unused: tuple[str, ...] = ()) -> PreTrainedModel:
    """The checkpoint's model, every weight of it read, float32.

    Args:
        unused: prefixes of weights that may be missing, because nothing here computes with them.

    Raises:
        VitrineError: there are no safetensors, they are unreadable, or some weights are missing or of another shape
            (transformers would fill those with random numbers).
    """
    if not any(folder.glob("*.safetensors")):
        raise VitrineError(
            f"{folder}: no *.safetensors; pickled weights are not read, convert them with save_pretrained"
        )
    with explain_errors(folder, "model"):
        model, found = model_class.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
        )
    absent = [name for name in found["missing_keys"] if not name.startswith(unused or ("\0",))]
    misshapen = [entry[0] for entry in found["mismatched_keys"]]
    if absent or misshapen:
        raise VitrineError(
            f"{folder}: the weights do not fit config.json, {len(absent)} are missing and {len(misshapen)} of another "
            f"shape, such as {sorted(absent + misshapen)[0]}; restore the checkpoint"
        )
    return model


@contextmanager
def explain_errors(folder: Path, part: str) -> Iterator[None]:
    """Turn whatever transformers raises for a broken checkpoint into one line, and keep it quiet meanwhile."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise VitrineError(f"{folder}: the {part} cannot be read ({lines[0]})") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
