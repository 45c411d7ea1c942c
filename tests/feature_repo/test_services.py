"""A service whose views share feature names says how Feast's calls tell them apart."""

from collections import Counter

from feast import FeatureService

from feature_repo import definitions
from feature_repo.services import FULL_NAMES


def test_the_description_of_a_service_with_shared_names_says_how_to_fetch_it() -> None:
    services = [one for one in vars(definitions).values() if isinstance(one, FeatureService)]
    shared = {
        service.name: {
            name
            for name, count in Counter(
                feature.name for view in service.feature_view_projections for feature in view.features
            ).items()
            if count > 1
        }
        for service in services
    }
    assert shared["ranking"] == {"category", "encoder_version"}
    assert {service.name for service in services if FULL_NAMES in service.description} == {
        name for name, names in shared.items() if names
    }
