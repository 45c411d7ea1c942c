"""The licence of a checkpoint: its file `encoder_licence`, else the front matter of its README.md, as on the hub."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

LICENCE_FILE = "encoder_licence"
"""File of a checkpoint with its licence in one line. The fingerprint leaves it out: a licence changes no vector."""
MODEL_CARD = "README.md"
PACKAGED = {"efficientnet-lite0": "Apache-2.0", "minilm": "Apache-2.0"}
"""Towers whose weights come as a Python package, and their licences."""
MAX_CHARACTERS = 200


def read_licence(path_or_name: str) -> str | None:
    """Return the licence that a checkpoint states, in one line; None if it states none. Nothing is downloaded.

    Args:
        path_or_name: a directory, or the hub name of a checkpoint that was downloaded before.
    """
    folder = Path(path_or_name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(path_or_name, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError, OSError):
            return None
    file = folder / LICENCE_FILE
    return _in_one_line(file.read_text()) if file.is_file() else _read_model_card(folder / MODEL_CARD)


def write_licence(folder: Path, licence: str | None) -> None:
    """Write the licence of a checkpoint beside it; None removes that of an earlier one."""
    (folder / LICENCE_FILE).unlink(missing_ok=True)
    if licence and (line := _in_one_line(licence)):
        (folder / LICENCE_FILE).write_text(line + "\n")


def combine_licences(towers: Sequence[str]) -> str | None:
    """Return the licences of the towers of an encoder, as `NAME LICENCE, ...`; None if none is stated.

    Args:
        towers: directories, hub names, or keys of PACKAGED.
    """
    licences = {name: PACKAGED.get(name) or read_licence(name) for name in towers}
    if not any(licences.values()):
        return None
    return ", ".join(f"{Path(name).name} {licence or 'not stated'}" for name, licence in licences.items())


def _read_model_card(file: Path) -> str | None:
    """Return `license` of the YAML between the two lines `---` that a model card begins with; None without it."""
    if not file.is_file():
        return None
    lines = file.read_text(errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.strip() == "---"), 0)
    try:
        matter = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError:
        return None
    licence = matter.get("license") if isinstance(matter, dict) else None
    names = licence if isinstance(licence, list) else [licence]
    return _in_one_line(", ".join(str(name) for name in names if name))


def _in_one_line(text: str) -> str | None:
    return " ".join(text.split())[:MAX_CHARACTERS] or None
