"""Where this deployment keeps its tables: `feature_store.yaml`, read without importing Feast.

The file is Feast's own. It is found as Feast finds it: `--store FILE`, else the environment variable
FEAST_FS_YAML_FILE_PATH, else `feature_repo/feature_store.yaml` (or `feature_store.yaml`) under the working directory.
Relative paths in it are relative to the file.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from feature_repo.errors import VitrineError

ENVIRONMENT_VARIABLE = "FEAST_FS_YAML_FILE_PATH"
CANDIDATES = ("feature_repo/feature_store.yaml", "feature_store.yaml")


@dataclass(frozen=True)
class Settings:
    """One deployment, as its feature_store.yaml says."""

    file: Path
    project: str
    offline: Path
    """The folder that holds the Delta tables, one folder a table."""
    raw: dict[str, Any]
    """The whole file, environment variables expanded."""

    def table(self, name: str) -> Path:
        """The folder of the Delta table `name`."""
        return self.offline / name


def load(file: Path | None = None) -> Settings:
    """Read the settings of a deployment.

    Raises:
        VitrineError: no file is found, it is no YAML mapping, or its `project` or `offline_store.path` is no text or
            names an environment variable that is not set.
    """
    found = _find(file)
    try:
        raw = yaml.safe_load(os.path.expandvars(found.read_text()))
        read = {"project": raw["project"], "offline_store.path": raw["offline_store"]["path"]}
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise VitrineError(
            f"{found}: not a usable feature_store.yaml ({said}); it needs `project` and `offline_store.path`"
        ) from error
    project, offline = (require_text(found, name, value) for name, value in read.items())
    return Settings(file=found, project=project, offline=(found.parent / offline).resolve(), raw=raw)


def require_text(file: Path, name: str, value: object) -> str:
    """The value of a setting that must be text.

    Raises:
        VitrineError: it is none, is blank, or names an environment variable that is not set.
    """
    if not isinstance(value, str) or not value.strip() or "${" in value:
        raise VitrineError(f"{file}: {name} is {value!r}; wanted text whose environment variables are all set")
    return value


def _find(file: Path | None) -> Path:
    named = file or os.environ.get(ENVIRONMENT_VARIABLE)
    candidates = [Path(named)] if named else [Path(name) for name in CANDIDATES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise VitrineError(
        f"no feature_store.yaml at {' or '.join(map(str, candidates))}; name one with --store or {ENVIRONMENT_VARIABLE}"
    )
