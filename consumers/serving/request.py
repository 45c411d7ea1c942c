"""What is asked for: a feature service, a user and the candidates, as JSON, the same over Flight and HTTP.

{"service": "ranking", "user_id": "u-17", "product_ids": ["p-3", "p-8"]}
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumers.serving.errors import Code, Refused
from consumers.serving.limits import MAX_ID_LETTERS

MAX_DEADLINE_MS = 60_000

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LETTERS)]


class Ask(BaseModel):
    """One request."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, cache_strings="keys")

    service: Annotated[str, Field(min_length=1, max_length=MAX_ID_LETTERS, description="A feature service.")]
    product_ids: Annotated[
        list[Id], Field(min_length=1, description="The candidates; the answer has a row for each, in this order.")
    ]
    user_id: Annotated[Id | None, Field(description="Needed by services with features of the user.")] = None
    keep_stale: Annotated[bool, Field(description="Give the values of rows older than their view's TTL too.")] = False
    deadline_ms: Annotated[
        int | None,
        Field(ge=1, le=MAX_DEADLINE_MS, description="Give up after so many milliseconds; never above the server's."),
    ] = None


def read(data: bytes | memoryview, max_ids: int) -> Ask:
    """A request from JSON.

    Raises:
        Refused: it is no JSON, not of this form, or names too many candidates.
    """
    try:
        ask = Ask.model_validate_json(bytes(data))
    except ValidationError as error:
        raise Refused(Code.INVALID_ARGUMENT, _in_words(error)) from None
    if len(ask.product_ids) > max_ids:
        raise Refused(
            Code.INVALID_ARGUMENT, f"product_ids: {len(ask.product_ids):,} candidates, at most {max_ids:,} a request"
        )
    return ask


def schema(max_ids: int) -> dict[str, Any]:
    """The form of a request, as JSON Schema."""
    form = Ask.model_json_schema()
    form["properties"]["product_ids"]["maxItems"] = max_ids
    form["examples"] = [{"service": "ranking", "user_id": "u-17", "product_ids": ["p-3", "p-8"]}]
    return form


def _in_words(error: ValidationError) -> str:
    """The first thing that is wrong, and where; never what was sent: it may be anything, and long."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(step)[:40] for step in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place + ': ' if place else ''}{first['msg']}{more}"
