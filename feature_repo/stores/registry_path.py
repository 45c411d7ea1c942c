"""Makes a relative SQLite path of Feast's registry start at the folder of the repository, as all other paths do.

Feast hands the path to SQLAlchemy as it is, so that it starts at the working directory: `FeatureStore(repo_path=...)`
finds another registry or none in each folder that it is called from. Feast has no plug-in point for a registry of type
`sql`, so `install` replaces the property `RepoConfig.registry`. feature_repo/stores/__init__.py calls it, and Feast
imports that package when it reads a feature_store.yaml that names one of our stores, before it opens the registry.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from feast.repo_config import RepoConfig
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def install() -> None:
    """Replace `RepoConfig.registry` by a property that also resolves paths. Later calls do nothing."""
    feasts_own = RepoConfig.registry.fget
    if getattr(feasts_own, "resolves_paths", False):
        return

    def registry(config: RepoConfig) -> Any:
        settings = feasts_own(config)
        if config.repo_path is not None and getattr(settings, "registry_type", None) == "sql":
            for name in ("path", "read_path"):
                url = getattr(settings, name, None)
                if url and (resolved := resolve_url(url, Path(config.repo_path))) != url:
                    setattr(settings, name, resolved)
        return settings

    registry.resolves_paths = True  # type: ignore[attr-defined]
    RepoConfig.registry = property(registry)


def resolve_url(url: str, folder: Path) -> str:
    """Return the URL of an SQLite file with an absolute path, and create the file's folder; return any other URL as is.

    Only the last folder of the path is created. A database in memory, a `file:` URI and an invalid URL are other URLs.

    Args:
        url: a database URL as SQLAlchemy takes it.
        folder: where a relative path starts.
    """
    try:
        parts = make_url(url)
    except ArgumentError:  # SQLAlchemy refuses it when the registry is opened
        return url
    file = parts.database
    if parts.get_backend_name() != "sqlite" or not file or file == ":memory:" or file.startswith("file:"):
        return url
    path = (folder / file).resolve()
    with suppress(OSError):  # SQLAlchemy says that it cannot open the file
        path.parent.mkdir(exist_ok=True)
    return parts.set(database=str(path)).render_as_string(hide_password=False)
