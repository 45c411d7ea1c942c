"""What an encoder is worth on products it never saw: text to image recall, and how far words alone could bring it.

Designs are held out whole: of another seller's picture of the same thing the encoder would know too much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_repo import vocabulary
from feature_repo.errors import VitrineError
from feature_repo.offline import input_files, validation
from feature_repo.schema import PRODUCT_ID
from producers.encoders.encoder import Encoder
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.recall import CUTOFFS, encode_pairs, recall_from_scores, text_to_image_recall
from producers.learning.encoder import read_pairs

DESIGN = ("design_id", "group")
"""Names of the column that says which products are one design."""

LEAST = 1e-3
"""Lowest probability given to a word, said or left unsaid."""


@dataclass(frozen=True)
class Evaluation:
    """Recall on held-out products."""

    pool: int
    """Products that ask and are searched."""
    recall: dict[int, float]
    """k to the share of titles with a picture of their design among the k nearest."""
    ceiling: dict[int, float] | None
    """What the word oracle reaches, None where nobody knows the true words."""

    def __str__(self) -> str:
        lines = [f"text to image, {self.pool:,} held-out products: {_row(self.recall)}"]
        if self.ceiling:
            lines.append(f"an oracle that knows each picture's true words: {_row(self.ceiling)}")
            share = self.recall[max(CUTOFFS)] / self.ceiling[max(CUTOFFS)]
            lines.append(f"of the oracle's recall at {max(CUTOFFS)}: {share:.0%}")
        return "\n".join(lines)


def hold_out(data: Path, designs: Path, count: int, seed: int) -> pa.Table:
    """Products to keep from training: whole designs, drawn by `seed`, `count` products with title and picture together.

    Args:
        data: folder with products.parquet.
        designs: Parquet or CSV with product_id and design_id (or group).

    Returns:
        product_id and design_id.

    Raises:
        VitrineError: a file cannot be read or lacks a column, or fewer than `count` products have a known design.
    """
    products = read_pairs(data)[0]
    table = input_files.read_table(designs, [PRODUCT_ID, *DESIGN])
    column = next((name for name in DESIGN if name in table.column_names), DESIGN[0])
    validation.require_columns(table, [PRODUCT_ID, column], designs)
    named = pa.table(
        {PRODUCT_ID: validation.parse_text(table, PRODUCT_ID, designs), "design_id": table[column]}
    ).drop_null()
    named = named.filter(pc.is_in(named[PRODUCT_ID], value_set=products[PRODUCT_ID].combine_chunks()))
    named = named.group_by(PRODUCT_ID).aggregate([("design_id", "max")]).rename_columns([PRODUCT_ID, "design_id"])
    named = named.sort_by(PRODUCT_ID)
    if len(named) <= count:
        raise VitrineError(f"{designs} knows {len(named)} products with title and picture; {count} cannot be held out")
    sizes = named.group_by("design_id").aggregate([(PRODUCT_ID, "count")]).sort_by("design_id")
    chosen, left = [], count
    for place in np.random.default_rng(seed).permutation(len(sizes)):
        size = sizes[f"{PRODUCT_ID}_count"][int(place)].as_py()
        if size <= left:
            chosen.append(sizes["design_id"][int(place)])
            left -= size
        if not left:
            break
    return named.filter(pc.is_in(named["design_id"], value_set=pa.array([value.as_py() for value in chosen])))


def evaluate(encoder: Encoder, data: Path, held_out: pa.Table, truth: Path | None = None) -> Evaluation:
    """Recall of an encoder on held-out products.

    Args:
        data: folder with products.parquet.
        held_out: as `hold_out` gives it.
        truth: folder of a generated shop's truth, for the oracle.
    """
    products, pictures, _ = read_pairs(data)
    place = pc.index_in(held_out[PRODUCT_ID], value_set=products[PRODUCT_ID].combine_chunks()).to_numpy()
    titles: Sequence[str] = products["title"].take(pa.array(place)).to_pylist()
    with open_decoding_pool() as pool:
        image, text, usable = encode_pairs(encoder, titles, [pictures[i] for i in place], pool)
    kept = held_out.filter(pa.array(usable))
    designs = kept["design_id"].to_numpy()
    titles = [title for title, good in zip(titles, usable, strict=True) if good]
    ceiling = compute_oracle_recall(titles, kept[PRODUCT_ID].to_pylist(), designs, truth) if truth else None
    return Evaluation(len(kept), text_to_image_recall(text, image, designs), ceiling)


def compute_oracle_recall(
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
    for attribute, words in vocabulary.read_vocabulary(truth).items():
        values = sorted(words)
        said = np.array([[value in vocabulary.find_values(title, words) for value in values] for title in titles])
        true = np.array([[value == shown for value in values] for shown in known[attribute].take(place).to_pylist()])
        named = np.clip(said[true].mean(), LEAST, 1 - LEAST)
        misnamed = np.clip(said[~true].mean(), LEAST, 1 - LEAST)
        weight = np.where(said, np.log(named / misnamed), np.log((1 - named) / (1 - misnamed)))
        score += weight @ true.T
    return recall_from_scores(score, designs)


def _row(recall: dict[int, float]) -> str:
    mean = float(np.mean(list(recall.values())))
    return ", ".join([*(f"recall@{depth} {share:.3f}" for depth, share in recall.items()), f"mean {mean:.3f}"])
