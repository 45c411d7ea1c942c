"""Read the files of a checkpoint directory: configuration, tokenizer, weights. Every fault is reported in one line.

Weights are read from safetensors only, never from pickles. Code that comes with a checkpoint is never run.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from feature_repo.errors import CorruptDataError, InvalidInputError, UnavailableError, VitrineError
from feature_repo.files.json_text import parse_json

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def read_json(file: Path) -> Any:
    """Return the content of a JSON file of a checkpoint.

    Raises:
        InvalidInputError: the file does not exist, so its folder is not a checkpoint.
        CorruptDataError: the file is not JSON.
    """
    try:
        return parse_json(file.read_text())
    except FileNotFoundError as error:
        raise InvalidInputError(f"{file.parent}: not a checkpoint, it has no {file.name}") from error
    except ValueError as error:
        raise CorruptDataError(f"{file}: not JSON ({error}); restore the checkpoint") from error


def read_tokenizer(folder: Path, vocabulary_size: int) -> Any:
    """Return the tokenizer of a checkpoint, of the class that transformers chooses.

    Args:
        folder: the checkpoint's directory.
        vocabulary_size: number of tokens for which the model has an embedding; the tokenizer may have fewer.

    Raises:
        CorruptDataError: the tokenizer is missing, unreadable, or has more tokens than `vocabulary_size`.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        # For some families transformers would silently create an empty tokenizer.
        raise CorruptDataError(f"{folder}: the tokenizer is missing; one of {', '.join(VOCABULARIES)} was expected")
    with explain_errors(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    if len(tokenizer) > vocabulary_size:
        raise CorruptDataError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {vocabulary_size}: they do not belong "
            "together; restore the checkpoint"
        )
    return tokenizer


def read_model(
    model_class: Any, folder: Path, unused: tuple[str, ...] = (), config: Any | None = None
) -> PreTrainedModel:
    """Return the model of a checkpoint in float32 on the CPU, and check that the file has every weight.

    The model is in evaluation mode. Weights that config.json has no place for are ignored.

    Args:
        model_class: class with the `from_pretrained` of transformers.
        folder: the checkpoint's directory, with config.json and *.safetensors.
        unused: prefixes of weights that may be missing, because no vector is computed from them.
        config: configuration of a part of the checkpoint, such as its text tower; None reads config.json.

    Raises:
        CorruptDataError: there are no safetensors, they are unreadable, or weights are missing or have another shape
            than config.json says (transformers would fill those with random numbers).
    """
    if not any(folder.glob("*.safetensors")):
        raise CorruptDataError(
            f"{folder}: no *.safetensors; pickled weights are not read, convert them with save_pretrained"
        )
    options = {} if config is None else {"config": config}
    with explain_errors(folder, "model"):
        model, report = model_class.from_pretrained(
            str(folder),
            **options,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with the names
        )
    missing = [name for name in report["missing_keys"] if not name.startswith(unused or ("\0",))]
    mismatched = [entry[0] for entry in report["mismatched_keys"]]
    if missing or mismatched:
        raise CorruptDataError(
            f"{folder}: the weights do not fit config.json: {len(missing)} are missing and {len(mismatched)} have "
            f"another shape, such as {sorted(missing + mismatched)[0]}; restore the checkpoint"
        )
    return model


def list_weights(folder: Path) -> list[str]:
    """Return the names of the weights in the *.safetensors of a checkpoint, without reading the weights.

    Raises:
        CorruptDataError: a file cannot be read.
    """
    names: list[str] = []
    with explain_errors(folder, "model"):
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, "pt") as weights:
                names += weights.keys()
    return names


@contextmanager
def explain_errors(folder: Path, part: str) -> Iterator[None]:
    """Turn any error that transformers raises within the context into one line, and silence its logging meanwhile.

    Args:
        folder: the checkpoint's directory, for the message.
        part: what is read, such as "tokenizer", for the message.

    Raises:
        VitrineError: as raised within the context.
        CorruptDataError: the context raised any other exception. KeyboardInterrupt is raised as it is.
    """
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    except VitrineError:  # explained already
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CorruptDataError(f"{folder}: the {part} cannot be read ({lines[0]})") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def explain_write_errors(target: Path) -> Iterator[None]:
    """Raise UnavailableError with one line if `target`, a file or a folder of weights, cannot be written.

    torch raises RuntimeError, safetensors its own error and `shutil.copytree` a list where the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else str(error).partition("\n")[0]
        raise UnavailableError(
            f"{target}: cannot be written ({reason}); check the free disk space and the permissions, and run this again"
        ) from error
