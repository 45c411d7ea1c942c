"""A search as the fields of its form, which are also those of its URL."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.errors import InvalidInputError
from feature_repo.index.filters import ProductFilter

PATH = "/search"
TAG_FIELD = "tag_"
"""Beginning of the fields with tags."""


@dataclass(frozen=True)
class SearchQuery:
    """What the form of a search holds. Texts are as they were typed; an empty one means any."""

    q: str = ""
    """The sentence."""
    like: str = ""
    """Id of the product that the results are to be like, instead of a sentence."""
    picture: str = ""
    """Vector of the picture that the results are to be like, as `encode_vector` gives it, instead of a sentence."""
    category: str = ""
    price_min: str = ""
    price_max: str = ""
    in_stock: bool = False
    collapse: bool = False
    """Show one of each set of near-duplicates."""
    beyond: bool = False
    """Show products below the cut-off too."""
    page: int = 1
    tags: tuple[tuple[str, str], ...] = ()
    """Tag and value."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to search for."""
        return not (self.q.strip() or self.like or self.picture)

    @property
    def has_filter(self) -> bool:
        """Whether any field beside the sentence and the page narrows or changes the results."""
        return bool(self.list_filters())

    def list_filters(self) -> list[str]:
        """Return each filter as a short text."""
        prices = [f"from {self.price_min}"] * bool(self.price_min) + [f"up to {self.price_max}"] * bool(self.price_max)
        chosen = [value for _, value in self.tags] + ["in stock"] * self.in_stock
        return [self.category] * bool(self.category) + prices + chosen + ["no near-duplicates"] * self.collapse

    def make_filter(self) -> ProductFilter:
        """Return the filter.

        Raises:
            InvalidInputError: a price cannot be read, or the filter is impossible.
        """
        return ProductFilter(
            (self.category,) if self.category else (),
            (),
            _parse_price("lowest", self.price_min),
            _parse_price("highest", self.price_max),
            dict(self.tags),
            self.in_stock,
        )

    def make_url(self, **changes: Any) -> str:
        """Return the URL of this search with other values of some fields; without `page` it is the first page."""
        changed = replace(self, **{"page": 1} | changes)
        values = {field.name: getattr(changed, field.name) for field in fields(changed) if field.name != "tags"}
        default = SearchQuery()
        pairs = [
            (name, "1" if value is True else str(value))
            for name, value in values.items()
            if value != getattr(default, name)
        ]
        pairs += [(TAG_FIELD + tag, value) for tag, value in changed.tags]
        return f"{PATH}?{urlencode(pairs)}" if pairs else PATH


def read_query(values: Mapping[str, Any]) -> SearchQuery:
    """Return the search that the fields of a form or a URL describe; unknown fields are ignored."""

    def text(name: str) -> str:
        value = values.get(name, "")
        return value.strip() if isinstance(value, str) else ""

    page = text("page")
    return SearchQuery(
        text("q"),
        text("like"),
        text("picture"),
        text("category"),
        text("price_min"),
        text("price_max"),
        text("in_stock") == "1",
        text("collapse") == "1",
        text("beyond") == "1",
        max(1, int(page[:4])) if page.isascii() and page.isdigit() else 1,
        tuple((tag, text(TAG_FIELD + tag)) for tag in schema.TAGS if text(TAG_FIELD + tag)),
    )


def encode_vector(vector: NDArray[np.float32]) -> str:
    """Return a vector [d] as a text for a URL, with 16 bits a value."""
    return base64.urlsafe_b64encode(vector.astype("<f2").tobytes()).rstrip(b"=").decode()


def decode_vector(text: str, dim: int) -> NDArray[np.float32]:
    """Return the unit vector [dim] of `encode_vector`.

    Raises:
        InvalidInputError: the text is not such a vector.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        vector = np.frombuffer(content, "<f2").astype(np.float32)
    except (binascii.Error, ValueError):
        vector = np.zeros(0, np.float32)
    length = float(np.linalg.norm(vector))
    if vector.shape != (dim,) or not np.isfinite(length) or length == 0:
        raise InvalidInputError("the picture of this link is not of this service's encoder; send the picture again")
    return vector / np.float32(length)


def _parse_price(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return float(text.replace(",", ""))
    except ValueError:
        raise InvalidInputError(f"the {name} price is {text[:40]!r}; expected a number such as 59.90") from None
