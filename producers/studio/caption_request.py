"""A request for caption lines, from JSON or from a form.

{"product_id": "p-3", "style": "lively", "language": "zh", "length": 40, "count": 4}
{"picture": "<base64>", "title": "红色连衣裙", "attributes": {"colour": "red"}}
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from feature_repo.errors import InvalidInputError
from feature_repo.server.json_request import Id, describe_fault
from feature_repo.serving_limits import CaptionLimits

Text = Annotated[str, Field(min_length=1, max_length=200)]
DEFAULT_COUNT = 4
DEFAULT_LENGTH = 40


class CaptionRequest(BaseModel):
    """One request for lines about one picture. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, val_json_bytes="base64")

    product_id: Annotated[Id | None, Field(description="A product of the shop, whose picture is captioned.")] = None
    picture: Annotated[
        bytes | None, Field(min_length=1, description="An encoded picture (JPEG, PNG, ...) instead of a product.")
    ] = None
    title: Annotated[str | None, Field(min_length=1, description="A title of the picture's product.")] = None
    attributes: Annotated[
        dict[Text, Text] | None,
        Field(description="What the caller knows of the product: values of tags, such as colour. They count as sure."),
    ] = None
    style: Literal["plain", "lively"] = "plain"
    language: Annotated[Literal["zh", "en"] | None, Field(description="None takes the server's.")] = None
    length: Annotated[int, Field(ge=1, description="Most characters of a line.")] = DEFAULT_LENGTH
    count: Annotated[int, Field(ge=1, description="Most lines.")] = DEFAULT_COUNT
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Seed of wordings, orders and continuations.")] = 0


def parse_json(data: bytes, limits: CaptionLimits) -> CaptionRequest:
    """Parse a request from JSON.

    Raises:
        InvalidInputError: it is not JSON; a field is unknown or invalid; there is neither or both of product_id and
            picture; or a bound is exceeded. The message names the first fault and its place, and never quotes the
            input.
    """
    try:
        request = CaptionRequest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInputError(describe_fault(error)) from None
    return _check(request, limits)


def parse_form(form: FormData, limits: CaptionLimits) -> CaptionRequest:
    """Parse a request from the fields of a form, in which an empty field is a missing one.

    The field `picture` is a file; `attributes` has one NAME=VALUE a line, and may be repeated. Other fields than those
    of a request are ignored.

    Raises:
        InvalidInputError: as for `parse_json`.
    """
    values: dict[str, Any] = {}
    for name in CaptionRequest.model_fields:
        value = form.get(name)
        if isinstance(value, UploadFile):
            if name == "picture" and value.size:
                values[name] = value.file.read()
        elif value is not None and name not in ("attributes", "picture") and value.strip():
            values[name] = value.strip()
    lines = [line for text in form.getlist("attributes") if isinstance(text, str) for line in text.splitlines()]
    for line in filter(None, map(str.strip, lines)):
        name, separator, value = line.partition("=")
        if not separator:
            raise InvalidInputError("attributes: a line without `=`; expected NAME=VALUE, such as colour=red")
        values.setdefault("attributes", {})[name.strip()] = value.strip()
    try:
        request = CaptionRequest.model_validate(values, strict=False)
    except ValidationError as error:
        raise InvalidInputError(describe_fault(error)) from None
    return _check(request, limits)


def describe_request(limits: CaptionLimits) -> dict[str, Any]:
    """Return the JSON Schema of a request, with its bounds and an example."""
    schema = CaptionRequest.model_json_schema()
    properties = schema["properties"]
    properties["length"]["maximum"] = limits.max_length
    properties["count"]["maximum"] = limits.max_count
    schema["examples"] = [{"product_id": "p00001", "style": "lively", "language": "zh", "length": 40, "count": 4}]
    return schema


def _check(request: CaptionRequest, limits: CaptionLimits) -> CaptionRequest:
    if (request.product_id is None) == (request.picture is None):
        have = "neither" if request.product_id is None else "both"
        raise InvalidInputError(f"{have} of product_id and picture is given; give one of them")
    bounds = (
        ("picture", len(request.picture or b""), limits.max_picture_bytes, "bytes"),
        ("title", len(request.title or ""), limits.max_title_characters, "characters"),
        ("attributes", len(request.attributes or ()), limits.max_attributes, "attributes"),
        ("length", request.length, limits.max_length, "characters"),
        ("count", request.count, limits.max_count, "lines"),
    )
    for name, value, bound, unit in bounds:
        if value > bound:
            raise InvalidInputError(f"{name}: {value:,} {unit}; at most {bound:,} are allowed")
    return request
