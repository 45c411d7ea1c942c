"""Affinity comes with the answer, and is what the features' own definition says."""

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
    """Of the small shop that the features are tested on."""
    made = world.deployment(tmp_path_factory.mktemp("shop"))
    world.write(SHOP, made)
    with materialized(made, RANKED) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(reader: OnlineReader) -> Iterator[Served]:
    with serving(reader, now=RANKED) as running:
        yield running


@pytest.mark.parametrize("user", [*list(SHOP.clicks)[:3], "a stranger"])
def test_affinity_is_a_column_of_each_name_null_where_nothing_is_known(
    served: Served, reader: OnlineReader, user: str
) -> None:
    wanted = fetch_with_affinity(reader, SERVICE, user, SHOP.products, RANKED)
    with FlightClient(served.flight, SERVICE) as client:
        by_flight = client.fetch(user, SHOP.products)
    by_http = HttpClient(served.http).fetch(SERVICE, user, SHOP.products)
    assert by_flight.candidates.equals(by_http.candidates)
    for name in NAMES:
        column = by_flight.candidates.column(f"user_product_affinity__{name}")
        np.testing.assert_array_equal(column.to_numpy(zero_copy_only=False), wanted.affinity[name])
        assert column.null_count == np.isnan(wanted.affinity[name]).sum()
    assert by_flight.user is not None
    assert "user_interest__interest_vector" in by_flight.user.schema.names
