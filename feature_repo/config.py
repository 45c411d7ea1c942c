"""The configuration of a deployment: `feature_store.yaml`, read without importing Feast.

The file is Feast's own and is found in Feast's way: `--store FILE`, else the environment variable
FEAST_FS_YAML_FILE_PATH, else `feature_repo/feature_store.yaml` or `feature_store.yaml` in the working directory.
Relative paths in it are relative to the file.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from feature_repo.age_scale import DEFAULT_AGE_SCALE, SETTING, AgeScale, parse_age_scale
from feature_repo.bucket_url import is_url
from feature_repo.errors import InvalidInputError, NotFoundError, VitrineError
from feature_repo.location import (
    BucketObject,
    BucketPath,
    Location,
    find_local_folder,
    find_object,
    parse_location,
)

ENVIRONMENT_VARIABLE = "FEAST_FS_YAML_FILE_PATH"
CANDIDATES = ("feature_repo/feature_store.yaml", "feature_store.yaml")


@dataclass(frozen=True)
class Settings:
    """The settings of one deployment, as `load` reads them."""

    file: Path
    """The feature_store.yaml. Absolute: `load` resolves it."""
    project: str
    """Name of the Feast project."""
    offline: Location
    """Where the Delta tables are, one folder a table: an absolute path, which `load` resolves from the folder of
    `file`, or a prefix of a bucket."""
    local: Path
    """The folder of what stays on this machine: locks, caches, indexes. Absolute. The same as `offline` unless the
    tables are in a bucket."""
    pictures: BucketPath | None
    """The prefix of the bucket whose pictures are read: of relative paths in a products table, and of URLs below it.
    None if no picture is in a bucket."""
    raw: dict[str, Any]
    """The whole file as a mapping, with environment variables expanded. Paths in it are as they were written."""

    def table(self, name: str) -> Location:
        """Return the location of the Delta table `name`, which need not exist."""
        return self.offline / name

    def find_picture(self, image: str) -> Path | BucketObject:
        """Return the file or object that the column `image` of the catalogue names. It need not exist."""
        return find_object(image, self.pictures)

    @property
    def age_scale(self) -> AgeScale:
        """The stages of child ages: the setting `child_age_stages`, or the default."""
        return parse_age_scale(self.raw.get(SETTING))


def load(file: Path | None = None) -> Settings:
    """Read the settings of a deployment. `project`, `offline_store` and `child_age_stages` are checked.

    Args:
        file: the feature_store.yaml. None takes the file that the environment variable FEAST_FS_YAML_FILE_PATH names;
            if that is not set, the first of CANDIDATES that exists in the working directory.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it is not a YAML mapping, or its `project` or `offline_store.path` is missing, is not text,
            is blank, or has an environment variable `${NAME}` that is not set; or `child_age_stages` is no scale; or
            `storage_options`, `local_path` or `pictures` of `offline_store` does not fit its path.
    """
    path = _find_file(file)
    try:
        raw = yaml.safe_load(os.path.expandvars(path.read_text()))
        values = {"project": raw["project"], "offline_store.path": raw["offline_store"]["path"]}
    except (yaml.YAMLError, OSError, UnicodeDecodeError, KeyError, TypeError) as error:
        message = " ".join(f"{type(error).__name__}: {_describe(error)}".split())
        raise InvalidInputError(
            f"{path}: not a usable feature_store.yaml ({message}); it needs `project` and `offline_store.path`"
        ) from error
    project, offline = (require_text(path, name, value) for name, value in values.items())
    options = raw["offline_store"].get("storage_options") or {}
    for name, value in options.items() if isinstance(options, dict) else [("", None)]:
        if not isinstance(value, bool | int | float):
            require_text(path, f"offline_store.storage_options {name}".strip(), value)
    try:
        parse_age_scale(raw.get(SETTING))
        pictures = _parse_pictures(path, raw["offline_store"].get("pictures"), options)
        location = parse_location(offline, path.parent, options if pictures is None or is_url(offline) else None)
        local = find_local_folder(location, path.parent, raw["offline_store"].get("local_path"))
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from None
    return Settings(file=path, project=project, offline=location, local=local, pictures=pictures, raw=raw)


def find_age_scale() -> AgeScale:
    """Return the scale of child ages of the deployment that Feast finds from here; the default if there is none.

    Raises:
        InvalidInputError: the feature_store.yaml is not usable.
    """
    try:
        return load().age_scale
    except NotFoundError:
        return DEFAULT_AGE_SCALE


def find_owner() -> str:
    """Return who answers for the features of the deployment that Feast finds from here: the setting `owner`.

    Empty if it is not set, or if there is no usable feature_store.yaml.
    """
    try:
        return str(load().raw.get("owner") or "")
    except VitrineError:  # Feast itself reports a file that is not usable
        return ""


def require_text(file: Path, name: str, value: object) -> str:
    """Return the value of a setting that must be text, as it is.

    Args:
        file: the feature_store.yaml, for messages.
        name: name of the setting.
        value: its value, with environment variables expanded.

    Raises:
        InvalidInputError: the value is not text, is blank, or still has `${`, of an environment variable that is not
            set.
    """
    expected = "expected text whose environment variables are all set"
    if not isinstance(value, str) or not value.strip():
        shown = repr(value) if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"
        raise InvalidInputError(f"{file}: {name} is {shown}; {expected}")
    unset = ", ".join(re.findall(r"\$\{[^}]*\}?", value))
    if unset:  # the rest of the value may be a password
        raise InvalidInputError(f"{file}: {name} has {unset}, which is not set; {expected}")
    return value


def _parse_pictures(file: Path, value: object, options: Mapping[str, Any]) -> BucketPath | None:
    """Return the setting `offline_store.pictures`, the URL of a prefix; None if it is not set."""
    if value is None:
        return None
    text = require_text(file, "offline_store.pictures", value)
    location = parse_location(text, file.parent, options) if is_url(text) else None
    if not isinstance(location, BucketPath):
        raise InvalidInputError(f"offline_store.pictures is {text}; expected the URL of a prefix in a bucket")
    return location


def _describe(error: Exception) -> str:
    """Return an error's message. Of YAML's, the problem and its place, not the line, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.YAMLError):
        return str(error)
    return f"{getattr(error, 'problem', '')} in line {mark.line + 1}, column {mark.column + 1}" if mark else "not YAML"


def _find_file(file: Path | None) -> Path:
    given = file or os.environ.get(ENVIRONMENT_VARIABLE)
    candidates = [Path(given)] if given else [Path(name) for name in CANDIDATES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise NotFoundError(
        f"no feature_store.yaml at {' or '.join(map(str, candidates))}; name one with --store or {ENVIRONMENT_VARIABLE}"
    )
