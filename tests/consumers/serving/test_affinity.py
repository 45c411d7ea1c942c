"""Responses contain the affinity that the features' own definition computes."""

from collections.abc import Iterator

import numpy as np
import pytest

from consumers.online import OnlineReader
from consumers.online.affinity import fetch_with_affinity
from consumers.serving.client import FlightClient, HttpClient
from feature_repo.features.affinity import NAMES
from tests.consumers.serving.running import Served, materialized, serving
from tests.feature_repo.features import world
from tests.feature_repo.features.world import RANKED

SHOP = world.small_shop()
SERVICE = "ranking_with_affinity"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineReader]:
    """A reader of the small shop that the features are tested with."""
    settings = world.deployment(tmp_path_factory.mktemp("shop"))
    world.write(SHOP, settings)
    with materialized(settings, RANKED) as reader:
        yield reader


@pytest.fixture(scope="module")
def served(reader: OnlineReader) -> Iterator[Served]:
    with serving(reader, now=RANKED) as running:
        yield running


@pytest.mark.parametrize("user", [*list(SHOP.clicks)[:3], "a stranger"])
def test_affinity_has_a_column_for_each_name_with_null_where_it_is_unknown(
    served: Served, reader: OnlineReader, user: str
) -> None:
    expected = fetch_with_affinity(reader, SERVICE, user, SHOP.products, RANKED)
    with FlightClient(served.flight, SERVICE) as client:
        by_flight = client.fetch(user, SHOP.products)
    by_http = HttpClient(served.http).fetch(SERVICE, user, SHOP.products)
    assert by_flight.candidates.equals(by_http.candidates)
    for name in NAMES:
        column = by_flight.candidates.column(f"user_product_affinity__{name}")
        np.testing.assert_array_equal(column.to_numpy(zero_copy_only=False), expected.affinity[name])
        assert column.null_count == np.isnan(expected.affinity[name]).sum()
    assert by_flight.user is not None
    assert "user_interest__interest_vector" in by_flight.user.schema.names
