"""What two encoders are worth for each use, on the same held-out products."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.fusion import SAME_PRODUCT, Space, fuse
from feature_repo.schema import CATEGORY_SEPARATOR, PRODUCT_ID
from producers.encoders.tuning import measures
from producers.encoders.tuning.examples import Rows, SameProducts, Sentences, Vectors
from producers.learning.tuning_report import MeasuredUse, compare_values

Labels = NDArray[np.object_]


@dataclass(frozen=True)
class EncodedShop:
    """Unit vectors of n products and of sentences by one encoder."""

    image: Vectors
    text: Vectors
    space: Space | None
    sentences: dict[str, Vectors]
    """Kind of sentences to their vectors."""

    @property
    def fused(self) -> Vectors:
        """The vector that finds the same product."""
        return fuse(self.image, self.text, SAME_PRODUCT, self.space)


def compare_uses(
    before: EncodedShop,
    after: EncodedShop,
    *,
    known: SameProducts,
    units: Rows,
    is_held_out: NDArray[np.bool_],
    sentences: dict[str, Sentences],
    attributes: dict[str, Labels],
) -> list[MeasuredUse]:
    """Return the measures of both encoders that have a query.

    Args:
        before: by the encoder as it was.
        after: by the tuned one.
        known: which of the n products are the same.
        units: what is held out together [n]; clusters of the intervals.
        is_held_out: [n].
        sentences: kind to sentences about the n products.
        attributes: name to the value of each product, None where it is not known [n].
    """
    rows = np.flatnonzero(is_held_out)
    both = before, after
    uses = []
    for kind in ("image", "text", "fused"):
        values = [measures.measure_same_recall(getattr(one, kind), known.groups, rows) for one in both]
        uses.append(compare_values(f"recall@10 of the same product, {kind}", values[0], values[1], units[rows]))
    for kind, about in sentences.items():
        own = about.select(rows)
        for name, vectors in (("image", [one.image for one in both]), ("title", [one.text for one in both])):
            values = [
                measures.measure_sentences(one.sentences[kind], each[rows], own)
                for one, each in zip(both, vectors, strict=True)
            ]
            uses.append(compare_values(f"AP@50 of {kind}, {name}", values[0], values[1], np.arange(len(about.texts))))
    values = [measures.measure_title_recall(one.text[rows], one.image[rows], units[rows]) for one in both]
    uses.append(compare_values("recall@10 of the picture of a title", values[0], values[1], units[rows]))
    for name, labels in attributes.items():
        values = [measures.measure_probe(one.fused, labels, is_held_out) for one in both]
        tested = np.array([label is not None for label in labels[rows]])
        if len(values[0]):
            uses.append(compare_values(f"accuracy of {name}, fused", values[0], values[1], units[rows][tested]))
    return [use for use in uses if use is not None]


def list_attributes(products: pa.Table, tag_labels: pa.Table | None) -> dict[str, Labels]:
    """Return what a probe predicts: the last level of the category, and each tag of the labels.

    Args:
        products: product_id, and `category` where the shop has it; n rows.
        tag_labels: product_id, tag and value; None without any.
    """
    attributes: dict[str, Labels] = {}
    if "category" in products.column_names:
        levels = [value and value.split(CATEGORY_SEPARATOR)[-1] for value in products["category"].to_pylist()]
        attributes["the category"] = np.array([level or None for level in levels], object)
    if tag_labels is not None:
        for tag in sorted(pc.unique(tag_labels["tag"].drop_null()).to_pylist()):
            own = tag_labels.filter(pc.field("tag") == tag)
            row = pc.index_in(products[PRODUCT_ID], value_set=own[PRODUCT_ID].combine_chunks())
            attributes[f"the tag {tag}"] = np.array(own["value"].take(row).to_pylist(), object)
    return attributes
