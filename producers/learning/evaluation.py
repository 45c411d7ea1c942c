"""Evaluate an encoder on products that it was not trained on: text-to-image recall, and the best that titles allow.

Whole designs are held out, because other sellers' images of the same design would give the answer away.

The upper bound is the recall of a word oracle. It knows the true attributes of each image (colour, age group, ...), and
how often sellers name the true value of an attribute and how often a false one. It scores an image for a title by the
likelihood of the words that the title has and lacks. Titles that say little, or something false, keep it below 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo import vocabulary
from feature_repo.arrow.text import normalize_ids
from feature_repo.errors import InvalidInputError
from feature_repo.location import BucketPath
from feature_repo.offline import input_files, validation
from feature_repo.schema import PRODUCT_ID
from producers.encoders.encoder import Encoder
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.recall import CUTOFFS, encode_pairs, recall_from_scores, text_to_image_recall
from producers.learning.encoder import read_pairs

DESIGN_COLUMNS = ("design_id", "group")
"""Names of the column with a product's design; the first of them that a file has is read."""
MIN_PROBABILITY = 1e-3
"""Lowest probability that the oracle gives a word to occur, or not to occur."""


@dataclass(frozen=True)
class Evaluation:
    """Text-to-image recall of one encoder on held-out products."""

    products: int
    """Number of products with a usable image; all their images are searched for each of their titles."""
    recall: dict[int, float]
    """Each k of CUTOFFS with the share in [0, 1] of titles whose k nearest images include one of their design; NaN if
    there are no products."""
    ceiling: dict[int, float] | None
    """Recall of the word oracle on the same products, with the same keys; None without the true attributes."""

    def __str__(self) -> str:
        lines = [f"text to image, {self.products:,} held-out products: {_format_recall(self.recall)}"]
        if self.ceiling:
            lines.append(f"an oracle that knows each image's true words: {_format_recall(self.ceiling)}")
            share = self.recall[max(CUTOFFS)] / self.ceiling[max(CUTOFFS)]
            lines.append(f"share of the oracle's recall at {max(CUTOFFS)}: {share:.0%}")
        return "\n".join(lines)


def hold_out(data: Path, designs: Path, count: int, seed: int) -> pa.Table:
    """Draw whole designs with at most `count` products in total, to be kept out of training.

    A design is what several products of different sellers may show. Designs are drawn in random order and skipped if
    they have more products than are still wanted. Only products with a title, an image and a known design count; a null
    design is unknown.

    Args:
        data: folder with products.parquet.
        designs: Parquet or CSV file with product_id and a column of DESIGN_COLUMNS. If it gives a product several
            designs, the largest id counts.
        count: number of products; fewer are drawn if the designs drawn do not add up to it.
        seed: of the draw; the same files and seed give the same products.

    Returns:
        One row for each product, in the order of product_id, with the columns product_id and design_id. The latter has
        this name and its type in the file, whatever it is called there.

    Raises:
        NotFoundError: a file does not exist.
        InvalidInputError: a file cannot be read or lacks a column, or at most `count` products have a title, an image
            and a known design, or every design has more than `count` products, as for a `count` of 0.
    """
    products = read_pairs(data)[0]
    with_design = read_designs(designs)
    with_design = with_design.filter(pc.is_in(with_design[PRODUCT_ID], value_set=products[PRODUCT_ID].combine_chunks()))
    if len(with_design) <= count:
        raise InvalidInputError(
            f"{designs} has {len(with_design)} products with title and image; {count} cannot be held out of them"
        )
    sizes = with_design.group_by("design_id").aggregate([(PRODUCT_ID, "count")]).sort_by("design_id")
    chosen, left = [], count
    for row in np.random.default_rng(seed).permutation(len(sizes)):
        size = sizes[f"{PRODUCT_ID}_count"][int(row)].as_py()
        if size <= left:
            chosen.append(sizes["design_id"][int(row)])
            left -= size
        if not left:
            break
    if not chosen:
        smallest = pc.min(sizes[f"{PRODUCT_ID}_count"]).as_py()
        raise InvalidInputError(
            f"{designs}: whole designs are held out, and the smallest has {smallest} products; hold out {smallest} or "
            f"more instead of {count}"
        )
    return with_design.filter(
        pc.is_in(with_design["design_id"], value_set=pa.array([value.as_py() for value in chosen]))
    )


def read_designs(file: Path) -> pa.Table:
    """Read the design of each product: product_id and design_id, one row for each product, in the order of product_id.

    Args:
        file: Parquet or CSV file with product_id and a column of DESIGN_COLUMNS. If it gives a product several designs,
            the largest id counts; rows with a null are left out.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: it cannot be read or lacks a column.
    """
    table = input_files.read_table(file, [PRODUCT_ID, *DESIGN_COLUMNS])
    column = next((name for name in DESIGN_COLUMNS if name in table.column_names), DESIGN_COLUMNS[0])
    validation.require_columns(table, [PRODUCT_ID, column], file)
    ids = normalize_ids(validation.parse_text(table, PRODUCT_ID, file))
    designs = pa.table({PRODUCT_ID: ids, "design_id": table[column]}).drop_null()
    designs = designs.group_by(PRODUCT_ID).aggregate([("design_id", "max")])
    return designs.rename_columns([PRODUCT_ID, "design_id"]).sort_by(PRODUCT_ID)


def evaluate(
    encoder: Encoder,
    data: Path,
    held_out: pa.Table,
    truth: Path | None = None,
    pictures: BucketPath | None = None,
) -> Evaluation:
    """Measure the text-to-image recall of an encoder on held-out products.

    Args:
        encoder: an image-text encoder.
        data: folder with products.parquet, in which each held-out product has a title and an image. Of several rows of
            one product the first is taken.
        held_out: from `hold_out` with the same `data`; products with an unusable image are left out.
        truth: folder with the truth of a generated shop, for the word oracle; None measures no ceiling.
        pictures: as in `read_pairs`.

    Raises:
        NotFoundError: products.parquet, or a file of `truth`, does not exist.
        InvalidInputError: products.parquet cannot be read, the encoder has no image tower, or the truth lacks a
            product or is unreadable.
    """
    products, images, _ = read_pairs(data, pictures)
    rows = pc.index_in(held_out[PRODUCT_ID], value_set=products[PRODUCT_ID].combine_chunks()).to_numpy()
    titles: Sequence[str] = products["title"].take(pa.array(rows)).to_pylist()
    with open_decoding_pool() as pool:
        image, text, usable = encode_pairs(encoder, titles, [images[row] for row in rows], pool)
    kept = held_out.filter(pa.array(usable))
    designs = kept["design_id"].to_numpy()
    titles = [title for title, good in zip(titles, usable, strict=True) if good]
    ceiling = compute_oracle_recall(titles, kept[PRODUCT_ID].to_pylist(), designs, truth) if truth else None
    return Evaluation(len(kept), text_to_image_recall(text, image, designs), ceiling)


def compute_oracle_recall(
    titles: Sequence[str], product_ids: Sequence[str], designs: NDArray[np.object_], truth: Path
) -> dict[int, float]:
    """Return the text-to-image recall of the word oracle on n products.

    The oracle knows the true attributes of each image, and how often titles name true and false ones. An image of
    another design with the same score as the best right one ranks before it.

    Args:
        titles: title of each product [n], n at least 1.
        product_ids: id of each product [n].
        designs: design id of each product [n]; any image of a title's design is a right answer.
        truth: folder with products.parquet (the true attributes; of several rows of one product the first is taken)
            and the vocabulary of a generated shop.

    Returns:
        Each k of CUTOFFS with the share in [0, 1] of titles that find an image of their design among the k best.

    Raises:
        InvalidInputError: the folder lacks a product, or its products.parquet cannot be read.
        NotFoundError: the folder has no products.parquet or no vocabulary.
    """
    file = truth / "products.parquet"
    attributes = input_files.read_table(file)
    words_of = vocabulary.read_vocabulary(truth)
    validation.require_columns(attributes, [PRODUCT_ID, *words_of], file)
    rows = pc.index_in(pc.cast(list(product_ids), "string"), value_set=attributes[PRODUCT_ID].combine_chunks())
    if rows.null_count:
        raise InvalidInputError(f"{truth}: the truth lacks {rows.null_count} of the products; is it of this shop?")
    score = np.zeros((len(titles), len(titles)))
    for attribute, words in words_of.items():
        values = sorted(words)
        is_named = np.array([[value in vocabulary.find_values(title, words) for value in values] for title in titles])
        is_true = np.array(
            [[value == shown for value in values] for shown in attributes[attribute].take(rows).to_pylist()]
        )
        named_if_true = np.clip(is_named[is_true].mean(), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        named_if_false = np.clip(is_named[~is_true].mean(), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        ratio_if_named = np.log(named_if_true / named_if_false)
        ratio_if_not_named = np.log((1 - named_if_true) / (1 - named_if_false))
        score += np.where(is_named, ratio_if_named, ratio_if_not_named) @ is_true.T
    return recall_from_scores(score, designs)


def _format_recall(recall: dict[int, float]) -> str:
    """Return the recall at each k, and their mean, as text."""
    mean = float(np.mean(list(recall.values())))
    return ", ".join([*(f"recall@{cutoff} {share:.3f}" for cutoff, share in recall.items()), f"mean {mean:.3f}"])
