"""No response contains features of two encoder versions, even if the server does not compare them."""

from collections.abc import Iterator
from datetime import timedelta

import httpx
import numpy as np
import pyarrow.flight as flight
import pytest

from consumers.online import OnlineReader
from consumers.online.affinity import fetch_with_affinity
from consumers.serving.client import FlightClient
from feature_repo.errors import EncoderMismatchError
from tests.consumers.serving.running import Served, materialized, serving
from tests.feature_repo.features import world
from tests.feature_repo.features.world import LISTED, RANKED

SHOP = world.small_shop()
OLD, NEW, VECTORLESS, UNKNOWN = "p1", "p3", "p9", "nothing"
KNOWN, STRANGER = "u3", "a stranger"
BOTH = f"features of two encoder versions are online: next@1 and {world.ENCODER}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineReader]:
    """A reader of the small shop in which one product already has vectors of the next encoder version."""
    settings = world.deployment(tmp_path_factory.mktemp("shop"))
    world.write(SHOP, settings)
    since, vector = [LISTED + timedelta(days=1)], [np.ones(world.WIDTH, np.float32)]
    world.write_rows(
        settings, "product_embedding", since, product_id=[NEW], fused_vector=vector, encoder_version=["next@1"]
    )
    with materialized(settings, RANKED) as reader:
        yield reader


@pytest.fixture(scope="module")
def served(reader: OnlineReader) -> Iterator[Served]:
    with serving(reader, now=RANKED) as running:
        yield running


def post(served: Served, service: str, user: str | None, products: list[str]) -> httpx.Response:
    body = {"service": service, "user_id": user, "product_ids": products}
    return httpx.post(f"{served.http}/v1/features", json=body)


@pytest.mark.parametrize(
    ("service", "user", "products"),
    [
        ("ranking_without_tags", None, [OLD, NEW]),
        ("ranking_without_tags", None, [UNKNOWN, NEW, VECTORLESS, OLD]),
        ("ranking", STRANGER, [OLD, NEW]),
        ("ranking", KNOWN, [NEW]),
        ("ranking", STRANGER, [NEW]),  # its tags and codes are of the old version
        ("ranking_with_affinity", STRANGER, [OLD, NEW]),
        ("ranking_with_affinity", KNOWN, [NEW]),
    ],
)
def test_two_encoder_versions_in_one_response_are_an_error_that_names_both(
    served: Served, service: str, user: str | None, products: list[str]
) -> None:
    over_http = post(served, service, user, products)
    assert (over_http.status_code, over_http.json()["error"]) == (503, "UNAVAILABLE")
    assert over_http.json()["message"].startswith(BOTH)
    with (
        FlightClient(served.flight, service) as client,
        pytest.raises(flight.FlightUnavailableError, match=f"UNAVAILABLE: {BOTH}"),
    ):
        client.fetch(user, products)


@pytest.mark.parametrize(
    ("service", "user", "products"),
    [
        ("ranking_without_tags", None, [OLD, VECTORLESS, UNKNOWN]),
        ("ranking_without_tags", None, [NEW, VECTORLESS, UNKNOWN]),
        ("ranking", KNOWN, [OLD]),
        ("ranking_with_affinity", STRANGER, [UNKNOWN]),
    ],
)
def test_one_encoder_version_is_answered_even_if_others_are_online(
    served: Served, service: str, user: str | None, products: list[str]
) -> None:
    over_http = post(served, service, user, products)
    assert over_http.status_code == 200, over_http.text
    assert set(over_http.json()["candidates"]["product_embedding__encoder_version"]) <= {world.ENCODER, "next@1", None}


def test_the_reader_refuses_two_encoder_versions_for_a_user_without_clicks(reader: OnlineReader) -> None:
    with pytest.raises(EncoderMismatchError, match=BOTH):
        fetch_with_affinity(reader, "ranking_with_affinity", STRANGER, [OLD, NEW], RANKED)
