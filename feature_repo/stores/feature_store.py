"""A Feast `FeatureStore` of a deployment, from whichever folder the program runs in."""

from feast import FeatureStore
from feast.errors import FeastError
from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
from sqlalchemy.exc import SQLAlchemyError

from feature_repo.config import Settings
from feature_repo.errors import VitrineError

SQLITE = "sqlite:///"


def open_feature_store(settings: Settings) -> FeatureStore:
    """The feature store that `settings.file` describes, its relative paths taken from that file's folder.

    Raises:
        VitrineError: Feast makes nothing of the file; its registry is a database that does not answer, or is damaged.
    """
    try:
        store = FeatureStore(config=absolute_config(settings))
        _ = store.registry  # Feast opens it at the first look
    except (FeastConfigError, FeastError) as error:
        raise VitrineError(f"{settings.file}: Feast refuses it: {_in_one_line(error)}") from error
    except SQLAlchemyError as error:
        said = _in_one_line(getattr(error, "orig", None) or error)
        raise VitrineError(f"{settings.file}: Feast's registry (registry.path) does not answer: {said}") from error
    return store


def absolute_config(settings: Settings) -> RepoConfig:
    """Feast's configuration with an absolute registry path: Feast itself takes a relative one from the working
    directory, and so finds another registry, or none, from another folder."""
    folder = settings.file.parent
    config = load_repo_config(folder, settings.file)
    path = str(config.registry.path)
    if path.startswith(SQLITE):
        config.registry.path = SQLITE + str((folder / path.removeprefix(SQLITE)).resolve())
    return config


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
