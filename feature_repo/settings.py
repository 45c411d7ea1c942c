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
        VitrineError: no file is found, it is no YAML mapping, or it lacks `project` or `offline_store.path`.
    """
    found = _find(file)
    try:
        raw = yaml.safe_load(os.path.expandvars(found.read_text()))
        project, offline = raw["project"], raw["offline_store"]["path"]
    except (yaml.YAMLError, OSError, KeyError, TypeError) as error:
        raise VitrineError(
            f"{found}: not a usable feature_store.yaml ({error}); it needs `project` and `offline_store.path`"
        ) from error
    return Settings(file=found, project=project, offline=(found.parent / offline).resolve(), raw=raw)


def _find(file: Path | None) -> Path:
    named = file or os.environ.get(ENVIRONMENT_VARIABLE)
    candidates = [Path(named)] if named else [Path(name) for name in CANDIDATES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise VitrineError(
        f"no feature_store.yaml at {' or '.join(map(str, candidates))}; name one with --store or {ENVIRONMENT_VARIABLE}"
    )
