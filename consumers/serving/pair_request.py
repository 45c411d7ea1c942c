"""A request for pairs, parsed from JSON. The same for HTTP and Arrow Flight.

{"pairs": [{"left": {"product_id": "p-3"},
            "right": {"title": "红色连衣裙", "picture": "<base64>", "brand": "小芽糯", "price": 59.0}}]}
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consumers.serving.request import MAX_DEADLINE_MS
from feature_repo.errors import InvalidInputError
from feature_repo.server.json_request import Id, describe_fault
from feature_repo.serving_limits import PairLimits

MAX_ATTRIBUTES = 50
Text = Annotated[str, Field(min_length=1, max_length=500)]


class PairedProduct(BaseModel):
    """One side of a pair: a product of the shop by its id, or any product by title, picture or both."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, val_json_bytes="base64")

    product_id: Annotated[Id | None, Field(description="A product of the shop, given alone.")] = None
    title: Annotated[str | None, Field(min_length=1, max_length=2_000)] = None
    picture: Annotated[bytes | None, Field(min_length=1, description="The encoded picture (JPEG, PNG, ...).")] = None
    brand: Text | None = None
    price: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    category: Annotated[Text | None, Field(description="Levels from the top, separated by `>`.")] = None
    attributes: Annotated[
        dict[Text, Text] | None,
        Field(max_length=MAX_ATTRIBUTES, description="Further facts, in which measures are looked for."),
    ] = None


class ProductPair(BaseModel):
    """Two products. Their order does not matter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    left: PairedProduct
    right: PairedProduct


class PairRequest(BaseModel):
    """One request for pairs. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pairs: Annotated[
        list[ProductPair], Field(min_length=1, description="The response has one row for each, in this order.")
    ]
    deadline_ms: Annotated[
        int | None,
        Field(ge=1, le=MAX_DEADLINE_MS, description="Time limit in milliseconds. The server's limit also applies."),
    ] = None

    def list_sides(self) -> list[tuple[str, PairedProduct]]:
        """Return the place of each product, such as `pairs.0.left`, and the product: left, right, left, ..."""
        return [
            (f"pairs.{number}.{name}", side)
            for number, pair in enumerate(self.pairs)
            for name, side in (("left", pair.left), ("right", pair.right))
        ]


def parse_request(data: bytes | memoryview, limits: PairLimits) -> PairRequest:
    """Parse a request from JSON.

    Raises:
        InvalidInputError: the request is too long or not JSON; a field is missing, unknown or invalid; there are too
            many pairs or none; a product has an id and something else, or neither id nor title nor picture; or a
            picture is too long. The message names the first fault and its place, and never quotes the input.
    """
    if len(data) > limits.max_request_bytes:
        raise InvalidInputError(
            f"the request has {len(data):,} bytes; it may have at most {limits.max_request_bytes:,}"
        )
    try:
        request = PairRequest.model_validate_json(bytes(data))
    except ValidationError as error:
        raise InvalidInputError(describe_fault(error)) from None
    if len(request.pairs) > limits.max_pairs:
        raise InvalidInputError(f"pairs: {len(request.pairs):,} pairs; a request may have at most {limits.max_pairs:,}")
    for place, side in request.list_sides():
        _check_side(place, side, limits)
    return request


def request_schema(limits: PairLimits) -> dict[str, Any]:
    """Return the JSON Schema of a request, with its bounds and an example."""
    schema = PairRequest.model_json_schema()
    product, pair = (schema["$defs"][model.__name__] for model in (PairedProduct, ProductPair))
    del schema["$defs"]  # a reference would not resolve within an OpenAPI document
    pair["properties"] = dict.fromkeys(pair["properties"], product)
    schema["properties"]["pairs"] |= {"items": pair, "maxItems": limits.max_pairs}
    example = {"left": {"product_id": "p-3"}, "right": {"title": "红色连衣裙", "brand": "小芽糯", "price": 59.0}}
    schema["examples"] = [{"pairs": [example]}]
    return schema


def _check_side(place: str, side: PairedProduct, limits: PairLimits) -> None:
    """Raise InvalidInputError if a product is not given in one of the two ways, or its picture is too long."""
    given = side.model_fields_set
    if side.product_id is not None and len(given) > 1:
        other = sorted(given - {"product_id"})[0]
        raise InvalidInputError(f"{place}: both product_id and {other}; give the id alone, or title and picture")
    if side.product_id is None and side.title is None and side.picture is None:
        raise InvalidInputError(f"{place}: no product_id, title or picture; give the id, or at least one of the others")
    if side.picture is not None and len(side.picture) > limits.max_picture_bytes:
        raise InvalidInputError(
            f"{place}.picture: {len(side.picture):,} bytes; a picture may have at most {limits.max_picture_bytes:,}"
        )
