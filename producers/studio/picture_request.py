"""A request to generate pictures from a sentence, from JSON or from a form.

{"sentence": "红色条纹连衣裙", "seed": 7, "steps": 30, "count": 4, "guidance": 4.0}
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_repo.errors import InvalidInputError
from feature_repo.server.json_request import Id, describe_fault
from feature_repo.serving_limits import PictureLimits

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 4.0


class PictureRequest(BaseModel):
    """One request for pictures of one sentence. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sentence: Annotated[str, Field(description="What the pictures shall show.")]
    product_id: Annotated[
        Id | None, Field(description="The product that the pictures are for; `produce forget` deletes them with it.")
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Seed of the first picture; each further one adds 1.")] = 0
    count: Annotated[int, Field(ge=1)] = 1
    steps: Annotated[int, Field(ge=1, description="Steps of the sampler.")] = DEFAULT_STEPS
    guidance: Annotated[float, Field(ge=1.0, allow_inf_nan=False, description="Classifier-free guidance scale.")] = (
        DEFAULT_GUIDANCE
    )
    height: Annotated[int | None, Field(ge=8, description="In pixels; None takes the model's.")] = None
    width: Annotated[int | None, Field(ge=8, description="In pixels; None takes the model's.")] = None


def parse_json(data: bytes, limits: PictureLimits) -> PictureRequest:
    """Parse a request from JSON.

    Raises:
        InvalidInputError: it is not JSON, a field is unknown or invalid, the sentence is empty, or a bound is exceeded.
            The message names the first fault and its place, and never quotes the input.
    """
    try:
        request = PictureRequest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInputError(describe_fault(error)) from None
    return _check(request, limits)


def parse_fields(fields: dict[str, str], limits: PictureLimits) -> PictureRequest:
    """Parse a request from the fields of a form, in which an empty field is a missing one; others are ignored.

    Raises:
        InvalidInputError: as for `parse_json`.
    """
    values: dict[str, Any] = {
        name: value.strip() for name, value in fields.items() if name in PictureRequest.model_fields and value.strip()
    }
    values.setdefault("sentence", "")
    try:
        request = PictureRequest.model_validate(values, strict=False)
    except ValidationError as error:
        raise InvalidInputError(describe_fault(error)) from None
    return _check(request, limits)


def describe_request(limits: PictureLimits) -> dict[str, Any]:
    """Return the JSON Schema of a request, with its bounds and an example."""
    schema = PictureRequest.model_json_schema()
    properties = schema["properties"]
    properties["sentence"] |= {"minLength": 1, "maxLength": limits.max_sentence_characters}
    for name, bound in (("count", limits.max_count), ("steps", limits.max_steps), ("guidance", limits.max_guidance)):
        properties[name]["maximum"] = bound
    schema["examples"] = [{"sentence": "红色条纹连衣裙", "seed": 7, "steps": 30, "count": 4, "guidance": 4.0}]
    return schema


def _check(request: PictureRequest, limits: PictureLimits) -> PictureRequest:
    if not request.sentence.strip():
        raise InvalidInputError("sentence: it is empty; say what the pictures shall show")
    if not request.sentence.isprintable():
        raise InvalidInputError("sentence: it has characters that cannot be printed; expected one line")
    bounds = (
        ("sentence", len(request.sentence), limits.max_sentence_characters, "characters"),
        ("count", request.count, limits.max_count, "pictures"),
        ("steps", request.steps, limits.max_steps, "steps"),
        ("guidance", request.guidance, limits.max_guidance, "at the scale"),
        ("height", request.height or 0, limits.max_side, "pixels"),
        ("width", request.width or 0, limits.max_side, "pixels"),
    )
    for name, value, bound, unit in bounds:
        if value > bound:
            raise InvalidInputError(f"{name}: {value:,} {unit}; at most {bound:,} are allowed")
    return request
