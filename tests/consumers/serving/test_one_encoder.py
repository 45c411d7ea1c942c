"""No answer holds vectors of two encoder versions, whether or not they are compared here."""

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
BOTH = f"vectors of two encoder versions are online: next@1 and {world.ENCODER}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineReader]:
    """Of the small shop, when one product has its vectors of the next encoder already."""
    made = world.deployment(tmp_path_factory.mktemp("shop"))
    world.write(SHOP, made)
    since, vector = [LISTED + timedelta(days=1)], [np.ones(world.WIDTH, np.float32)]
    world.write_rows(
        made, "product_embedding", since, product_id=[NEW], fused_vector=vector, encoder_version=["next@1"]
    )
    with materialized(made, RANKED) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(reader: OnlineReader) -> Iterator[Served]:
    with serving(reader, now=RANKED) as running:
        yield running


def ask(served: Served, service: str, user: str | None, products: list[str]) -> httpx.Response:
    asked = {"service": service, "user_id": user, "product_ids": products}
    return httpx.post(f"{served.http}/v1/features", json=asked)


@pytest.mark.parametrize(
    ("service", "user", "products"),
    [
        ("ranking_without_tags", None, [OLD, NEW]),
        ("ranking_without_tags", None, [UNKNOWN, NEW, VECTORLESS, OLD]),
        ("ranking", STRANGER, [OLD, NEW]),
        ("ranking", KNOWN, [NEW]),
        ("ranking_with_affinity", STRANGER, [OLD, NEW]),
        ("ranking_with_affinity", KNOWN, [NEW]),
    ],
)
def test_two_encoders_in_one_answer_are_refused_by_both_names(
    served: Served, service: str, user: str | None, products: list[str]
) -> None:
    over_http = ask(served, service, user, products)
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
        ("ranking", STRANGER, [NEW]),
        ("ranking", KNOWN, [OLD]),
        ("ranking_with_affinity", STRANGER, [NEW]),
        ("ranking_with_affinity", STRANGER, [UNKNOWN]),
    ],
)
def test_an_answer_of_one_encoder_is_given_whatever_else_is_online(
    served: Served, service: str, user: str | None, products: list[str]
) -> None:
    over_http = ask(served, service, user, products)
    assert over_http.status_code == 200, over_http.text
    assert set(over_http.json()["candidates"]["product_embedding__encoder_version"]) <= {world.ENCODER, "next@1", None}


def test_the_reader_refuses_them_too_for_a_user_without_clicks(reader: OnlineReader) -> None:
    with pytest.raises(EncoderMismatchError, match=BOTH):
        fetch_with_affinity(reader, "ranking_with_affinity", STRANGER, [OLD, NEW], RANKED)
