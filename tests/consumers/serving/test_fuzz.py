"""Requests made up from the service's own OpenAPI, right ones and wrong ones: never a 5xx, never a word of the machine.

`deadline_ms` is left out: a deadline of a millisecond is answered 504, as it should be (test_refusals.py).
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
from tests.consumers.serving.test_refusals import tells

QUICK = 40
FULL = 400


def fuzz(served: Served, mode: GenerationMode, cases: int) -> Counter[int]:
    """Send so many cases to each operation; returns how often each status came back."""
    form = httpx.get(f"{served.http}/openapi.json").json()
    asked = form["paths"]["/v1/features"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    del asked["properties"]["deadline_ms"]
    asked["properties"]["service"] = {"type": "string", "enum": ["ranking", "products", "nothing"]}
    sent: Counter[int] = Counter()
    with httpx.Client(base_url=served.http) as client:
        for operation in schemathesis.openapi.from_dict(form).get_all_operations():
            made = operation.ok()
            if mode is GenerationMode.NEGATIVE and not made.body:
                continue  # nothing in it that could be wrong
            documented = {*made.definition.raw["responses"], "401", "413"}

            @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(case=made.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                answer = client.request(**_plain(case, served.http))
                sent[answer.status_code] += 1
                assert answer.status_code < 500, answer.text
                assert not tells(answer.text)
                assert str(answer.status_code) in documented  # noqa: B023

            send()
    return sent


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_answered_5xx_or_told_of_the_machine(served: Served, mode: GenerationMode) -> None:
    sent = fuzz(served, mode, QUICK)
    assert sent.total() >= QUICK
    assert (sent[200] > 0) == (mode is GenerationMode.POSITIVE)


@pytest.mark.slow
def test_thousands_of_requests_are_answered_so(served: Served) -> None:
    sent = fuzz(served, GenerationMode.POSITIVE, FULL) + fuzz(served, GenerationMode.NEGATIVE, 2 * FULL)
    assert sent.total() >= 1_000
    assert {200, 404, 400} <= set(sent)


@settings(max_examples=30)
@given(body=st.binary(max_size=500), accept=st.sampled_from(["*/*", "application/vnd.apache.arrow.stream", "x"]))
def test_a_body_that_is_not_a_request_is_400(served: Served, body: bytes, accept: str) -> None:
    answer = httpx.post(f"{served.http}/v1/features", content=body, headers={"accept": accept})
    assert answer.status_code == 400
    assert not tells(answer.text)


def _plain(case: Any, base: str) -> dict[str, Any]:
    """A case as httpx takes it."""
    made = case.as_transport_kwargs(base_url=base)
    understood = {"method": "method", "url": "url", "params": "params", "json": "json", "data": "content"}
    return {
        "headers": dict(made["headers"]),
        **{ours: made[theirs] for theirs, ours in understood.items() if made.get(theirs) is not None},
    }
