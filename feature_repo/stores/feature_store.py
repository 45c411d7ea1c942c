"""Opens a deployment's Feast `FeatureStore`, independent of the working directory."""

import re
from typing import Any

from feast import FeatureStore
from feast.errors import FeastError
from feast.online_response import OnlineResponse
from feast.repo_config import FeastConfigError, load_repo_config
from sqlalchemy.exc import SQLAlchemyError

from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, UnavailableError
from feature_repo.stores.online.documents import order_by_distance


class RankedFeatureStore(FeatureStore):
    """Feast's `FeatureStore`, whose retrieved documents come in the order of their distance.

    Feast 0.67 sorts them by their keys.
    """

    def retrieve_online_documents_v2(self, *arguments: Any, **options: Any) -> OnlineResponse:
        """Return the nearest entities with their features, the nearest first; arguments as in Feast."""
        response = super().retrieve_online_documents_v2(*arguments, **options)
        order_by_distance(response.proto.results, response.proto.metadata.feature_names.val)
        return response


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
        store = RankedFeatureStore(config=load_repo_config(settings.file.parent, settings.file))
        _ = store.registry  # Feast opens it when it is first used
    except (FeastConfigError, FeastError) as error:
        raise InvalidInputError(f"{settings.file}: Feast refuses it: {_in_one_line(error)}") from None
    except SQLAlchemyError as error:
        message = _in_one_line(getattr(error, "orig", None) or error)
        raise UnavailableError(
            f"{settings.file}: Feast's registry (registry.path) does not answer: {message}"
        ) from error
    return store


def _in_one_line(error: BaseException) -> str:
    """Return the message without the values that pydantic quotes from the file: one may hold a password."""
    message = re.sub(r"\[type=(\w+), input_value=.*?(, input_type=\w+\]|$)", r"[\1]", str(error), flags=re.DOTALL)
    return " ".join(message.split())
