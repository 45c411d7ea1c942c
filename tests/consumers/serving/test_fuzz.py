"""Random valid and invalid requests from the server's OpenAPI document: no 5xx, and no message reveals internals.

`deadline_ms` is left out, because a deadline of a millisecond is rightly answered with 504 (test_refusals.py).
"""

from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.consumers.serving.running import Served
from tests.consumers.serving.test_refusals import reveals_internals

QUICK = 40
FULL = 400


def fuzz(served: Served, mode: GenerationMode, cases: int) -> Counter[int]:
    """Send `cases` random requests to each operation and count the statuses of the responses."""
    openapi = httpx.get(f"{served.http}/openapi.json").json()
    schema = openapi["paths"]["/v1/features"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    del schema["properties"]["deadline_ms"]
    schema["properties"]["service"] = {"type": "string", "enum": ["ranking", "products", "nothing"]}
    sent: Counter[int] = Counter()
    with httpx.Client(base_url=served.http) as client:
        for operation in schemathesis.openapi.from_dict(openapi).get_all_operations():
            valid = operation.ok()
            if mode is GenerationMode.NEGATIVE and not valid.body:
                continue  # without a body there is nothing invalid to send
            documented = {*valid.definition.raw["responses"], "401", "413"}

            @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=valid.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                response = client.request(**to_httpx(case, served.http))
                sent[response.status_code] += 1
                assert response.status_code < 500, response.text
                assert not reveals_internals(response.text)
                assert str(response.status_code) in documented  # noqa: B023

            send()
    return sent


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_gets_a_5xx_or_a_message_about_internals(served: Served, mode: GenerationMode) -> None:
    sent = fuzz(served, mode, QUICK)
    assert sent.total() >= QUICK
    assert (sent[200] > 0) == (mode is GenerationMode.POSITIVE)


@pytest.mark.slow
def test_a_thousand_requests_get_no_5xx(served: Served) -> None:
    sent = fuzz(served, GenerationMode.POSITIVE, FULL) + fuzz(served, GenerationMode.NEGATIVE, 2 * FULL)
    assert sent.total() >= 1_000
    assert {200, 404, 400} <= set(sent)


@settings(max_examples=30)
@given(body=st.binary(max_size=500), accept=st.sampled_from(["*/*", "application/vnd.apache.arrow.stream", "x"]))
def test_a_body_that_is_not_a_request_is_400(served: Served, body: bytes, accept: str) -> None:
    response = httpx.post(f"{served.http}/v1/features", content=body, headers={"accept": accept})
    assert response.status_code == 400
    assert not reveals_internals(response.text)


def to_httpx(case: Any, base: str) -> dict[str, Any]:
    """Return the arguments of a case for httpx."""
    kwargs = case.as_transport_kwargs(base_url=base)
    names = {"method": "method", "url": "url", "params": "params", "json": "json", "data": "content"}
    return {
        "headers": dict(kwargs["headers"]),
        **{ours: kwargs[theirs] for theirs, ours in names.items() if kwargs.get(theirs) is not None},
    }
