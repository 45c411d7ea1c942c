"""Opens a deployment's Feast `FeatureStore`, independent of the working directory."""

from feast import FeatureStore
from feast.errors import FeastError
from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
from sqlalchemy.exc import SQLAlchemyError

from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, UnavailableError

SQLITE = "sqlite:///"
"""How a registry path that names an SQLite file starts."""


def open_feature_store(settings: Settings) -> FeatureStore:
    """Open the feature store that `settings.file` describes. Relative paths start at that file's folder.

    The registry is opened now, so that its errors are raised here.

    Args:
        settings: the deployment's feature_store.yaml.

    Raises:
        InvalidInputError: Feast does not accept the file.
        UnavailableError: the registry's database does not answer or is damaged.
    """
    try:
        store = FeatureStore(config=absolute_config(settings))
        _ = store.registry  # Feast opens it when it is first used
    except (FeastConfigError, FeastError) as error:
        raise InvalidInputError(f"{settings.file}: Feast refuses it: {_in_one_line(error)}") from error
    except SQLAlchemyError as error:
        message = _in_one_line(getattr(error, "orig", None) or error)
        raise UnavailableError(
            f"{settings.file}: Feast's registry (registry.path) does not answer: {message}"
        ) from error
    return store


def absolute_config(settings: Settings) -> RepoConfig:
    """Return Feast's configuration of a deployment, with an absolute registry path if the registry is an SQLite file.

    Feast resolves a relative one from the working directory, so in another folder it finds another registry or none.
    Other registries keep their path.

    Args:
        settings: the deployment's feature_store.yaml.

    Raises:
        FeastConfigError: Feast does not accept the file.
    """
    folder = settings.file.parent
    config = load_repo_config(folder, settings.file)
    path = str(config.registry.path)
    if path.startswith(SQLITE):
        config.registry.path = SQLITE + str((folder / path.removeprefix(SQLITE)).resolve())
    return config


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
