"""What requests in JSON share: the form of an id, and one line for a request that does not have the expected form."""

from typing import Annotated

from pydantic import Field, ValidationError

from feature_repo.serving_limits import MAX_ID_LENGTH

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]


def describe_fault(error: ValidationError) -> str:
    """Return the place and text of the first fault, without the input, which may be long or hostile."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(step)[:40] for step in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path + ': ' if path else ''}{first['msg']}{more}"
