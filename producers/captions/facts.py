"""What captions may state: the values of tags that are probable enough, and the words for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError
from feature_repo.offline import delta, production
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TAG_SEPARATOR, TAGS
from feature_repo.vocabulary import Words, find_values
from producers.embeddings.existing_rows import find_latest

FURTHER = ("further_tags", "further_tag_probabilities")
NO_TAGS = "the product version has no tags; run `produce tags`"
"""The reason for which a product without a row in `product_tags` has no caption."""
FEW = 1_000
"""So many product versions or fewer are read by their ids, without the rest of the table."""


@dataclass(frozen=True)
class Fact:
    """A value of a tag that a caption may state."""

    tag: str
    """Name of the tag, and of the attribute in the table of words."""
    value: str
    """Its value."""
    probability: float
    """How probable the value is, calibrated, in [0, 1]."""

    def __str__(self) -> str:
        return f"{self.tag}{TAG_SEPARATOR}{self.value}"


@dataclass(frozen=True)
class ProductFacts:
    """What the tags say about a product version."""

    sure: tuple[Fact, ...]
    """The facts that are probable enough, the most probable first."""
    category: str | None
    """The category by the tags, however probable; None if the tagger abstains."""


@dataclass(frozen=True)
class TagTable:
    """One version of the table `product_tags`, opened."""

    dataset: pyarrow.dataset.Dataset
    where: pyarrow.dataset.Expression | None
    """The filter for the rows of the encoder version in production; None for all rows."""


def open_tags(settings: Settings) -> TagTable:
    """Open the newest version of the tags of a deployment.

    Raises:
        NotFoundError: there is no table of tags.
    """
    path = settings.table(schema.TAGS_TABLE)
    if not delta.exists(path):
        raise NotFoundError("there is no table `product_tags`, which says what captions may state; run `produce tags`")
    return TagTable(delta.open_dataset(path), production.rows_filter(path))


def read_facts(tags: TagTable, versions: pa.Table, min_probability: float) -> list[ProductFacts | None]:
    """Return the facts of product versions, in their order; None for a version without tags.

    The tags are those of the encoder version in production. Of several rows of a version the one created last counts.
    A further tag whose probability is not stored, as before it was, is not sure.

    Args:
        tags: the tags.
        versions: n rows with product_id and event_timestamp.
        min_probability: a value that is less probable is not sure, in [0, 1].
    """
    chances = [f"{tag}_probability" for tag in TAGS]
    further = [name for name in FURTHER if name in tags.dataset.schema.names]
    key = [PRODUCT_ID, EVENT_TIMESTAMP]
    where = tags.where
    if len(versions) <= FEW:
        of_products = pc.field(PRODUCT_ID).isin(pc.unique(versions[PRODUCT_ID]))
        where = of_products if where is None else where & of_products
    rows = tags.dataset.to_table([*key, CREATED_TIMESTAMP, *TAGS, *chances, *further], filter=where)
    rows = rows.take(pa.array(find_latest(rows)))
    numbered = rows.select(key).append_column("row", pa.array(range(len(rows)), pa.int64()))
    wanted = versions.select(key).append_column("position", pa.array(range(len(versions)), pa.int64()))
    joined = wanted.join(numbered, key, join_type="left outer").sort_by("position")
    parsed = [parse_facts(row, min_probability) for row in rows.drop_columns([*key, CREATED_TIMESTAMP]).to_pylist()]
    return [None if row is None else parsed[row] for row in joined["row"].to_pylist()]


def parse_facts(row: Mapping[str, Any], min_probability: float) -> ProductFacts:
    """Return the facts of a row of `product_tags`.

    Args:
        row: TAGS with their probabilities, and FURTHER as far as they are stored.
        min_probability: a value that is less probable is not sure, in [0, 1].
    """
    facts = [Fact(tag, row[tag], row[f"{tag}_probability"]) for tag in TAGS if row[tag] is not None]
    probabilities = row.get(FURTHER[1]) or ()
    for text, probability in zip((row.get(FURTHER[0]) or ())[: len(probabilities)], probabilities, strict=True):
        tag, _, value = text.partition(TAG_SEPARATOR)
        facts.append(Fact(tag, value, probability))
    sure = [fact for fact in facts if fact.probability >= min_probability]
    return ProductFacts(tuple(sorted(sure, key=lambda fact: -fact.probability)), row["category"])


def find_statements(line: str, vocabulary: Mapping[str, Words]) -> set[tuple[str, str]]:
    """Return the attributes and values that a line states, by the words of the vocabulary."""
    return {(tag, value) for tag, words in vocabulary.items() for value in find_values(line, words)}
