"""How far words could bring a search: an oracle that knows what each picture shows, and reads titles as they are.

For every attribute (colour, age stage, ...) it knows how often sellers name the true value and how often a false one,
and scores a picture for a title by the likelihood of the words said and left unsaid. Titles that say little, or other
than what is so, keep it from 1: that is the ceiling of whatever reads titles.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo import vocabulary as vocabulary
from feature_repo.errors import VitrineError
from feature_repo.schema import PRODUCT_ID
from producers.encoders.recall import from_scores

LEAST = 1e-3
"""Lowest probability given to a word, said or left unsaid."""


def recall(
    titles: Sequence[str], products: Sequence[str], designs: NDArray[np.object_], truth: Path
) -> dict[int, float]:
    """Text to image recall of the oracle on these products, each title asking, each picture an answer.

    Raises:
        VitrineError: the truth folder has no words, or does not know a product.
    """
    known = pq.read_table(truth / "products.parquet")
    place = pc.index_in(pc.cast(list(products), "string"), value_set=known[PRODUCT_ID].combine_chunks())
    if place.null_count:
        raise VitrineError(f"{truth}: the truth does not know {place.null_count} of the products; is it of this shop?")
    score = np.zeros((len(titles), len(titles)))
    for attribute, words in vocabulary.read(truth).items():
        values = sorted(words)
        said = np.array([[value in vocabulary.named(title, words) for value in values] for title in titles])
        true = np.array([[value == shown for value in values] for shown in known[attribute].take(place).to_pylist()])
        named = np.clip(said[true].mean(), LEAST, 1 - LEAST)
        misnamed = np.clip(said[~true].mean(), LEAST, 1 - LEAST)
        weight = np.where(said, np.log(named / misnamed), np.log((1 - named) / (1 - misnamed)))
        score += weight @ true.T
    return from_scores(score, designs)
