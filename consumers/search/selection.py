"""The best products for a sentence, with the reasons; near-duplicates are collapsed on request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from consumers.search.calibration import SearchCalibration
from consumers.search.scoring import DEFAULT_WEIGHTS, PARTS, ScoredProducts, SentenceScorer
from consumers.search.sentence import Sentence, parse_sentence
from feature_repo.errors import EncoderMismatchError, InvalidInputError, NotFoundError
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.index.filters import ProductFilter
from feature_repo.index.nearest import Ints
from feature_repo.index.product_index import ProductIndex
from feature_repo.index.segmentation import segment_text

DEFAULT_TOP_K = 200
DUPLICATE_COSINE = 0.97
"""Products whose image vectors have at least this cosine are near-duplicates; without pictures the text vectors."""
COLLAPSE_DEPTH = 5
"""Products, as a multiple of `top_k`, among which near-duplicates are collapsed."""
CLEARLY = 0.5
"""Standard deviations from the mean picture at which a reason says that a picture looks like a word, or does not."""


@dataclass(frozen=True)
class SearchResult:
    """The selected products of a sentence, best first."""

    sentence: Sentence
    where: ProductFilter
    products: pa.Table
    """INDEX_ROWS and `rank` (from 1), `score`, `score_PART` for each part (null where the product lacks it),
    `probability` (calibrated; null without a calibration), `reasons`, `duplicates` (ids collapsed into this one,
    separated by blanks; null without any)."""
    allowed: int
    """Number of products that the filter leaves."""
    below_cutoff: int
    """Products of the best `top_k` that were left out because they score below the cut-off of their category."""


def search_products(
    index: ProductIndex,
    encoder: ExportedEncoder,
    text: str,
    *,
    where: ProductFilter,
    top_k: int,
    calibration: SearchCalibration | None = None,
    collapse: bool = False,
    ends_at_cutoff: bool = True,
) -> SearchResult:
    """Return the products that fit a sentence best.

    Args:
        index: of the encoder's version.
        encoder: encodes the sentence.
        text: the sentence.
        where: which products may be returned.
        top_k: most products to return; fewer if fewer pass the filter, or end at the cut-off. At most DEFAULT_TOP_K,
            or as many as the index has.
        calibration: weights and cut-offs; None takes DEFAULT_WEIGHTS and no cut-off.
        collapse: of near-duplicates, return the best only and name the others. They are searched for among the best
            COLLAPSE_DEPTH * `top_k` products, so the result may be shorter than `top_k`.
        ends_at_cutoff: leave out products below the cut-off of their category, if there is a calibration.

    Raises:
        InvalidInputError: the sentence is blank, too long or not understood; `top_k` is less than 1, or more than
            DEFAULT_TOP_K and the number of products; or `collapse` is set and the index has neither image nor text
            vectors.
        NotFoundError: no product passes the filter.
        EncoderMismatchError: index, encoder or calibration are of different encoder versions.
    """
    if top_k < 1:
        raise InvalidInputError(f"top_k is {top_k}; expected at least 1")
    if top_k > max(len(index.all), DEFAULT_TOP_K):
        raise InvalidInputError(
            f"top_k is {top_k:,}, and the index has {len(index.all):,} products; ask for at most as many"
        )
    if collapse and not {"image_vector", "text_vector"} & set(index.vectors):
        raise InvalidInputError(
            f"near-duplicates are found by image_vector or text_vector, and the index has {', '.join(index.vectors)}; "
            "run produce index with one of them, or search without --collapse"
        )
    check_versions(index, encoder, calibration)
    sentence = parse_sentence(text, index, encoder)
    selection = index.select(where)
    if not len(selection):
        raise NotFoundError(explain_empty(index, where))
    scored = SentenceScorer(index).score(sentence, encoder.encode_texts([sentence.text])[0], selection)
    scores = scored.combine(DEFAULT_WEIGHTS if calibration is None else calibration.weights)
    order = np.lexsort((scored.rows, -scores))
    duplicates: Mapping[int, list[int]] = {}
    if collapse:
        order, duplicates = collapse_duplicates(index, scored.rows, order, top_k)
    order = order[:top_k]
    below = 0
    if calibration is not None and ends_at_cutoff:
        categories = index.take(scored.rows[order], ["category"])["category"].to_pylist()
        cutoffs = np.array([calibration.find_cutoff(category) for category in categories])
        below = int((scores[order] < cutoffs).sum())
        order = order[scores[order] >= cutoffs]
    products = _build_products(index, sentence, scored, scores, order, duplicates, calibration)
    return SearchResult(sentence, where, products, len(selection), below)


def check_versions(index: ProductIndex, encoder: ExportedEncoder, calibration: SearchCalibration | None) -> None:
    """Raise EncoderMismatchError unless index, encoder and calibration are of one encoder version."""
    for name, version in (
        ("the exported towers are", encoder.encoder_version),
        ("the calibration is", index.encoder_version if calibration is None else calibration.encoder_version),
    ):
        if version != index.encoder_version:
            raise EncoderMismatchError(f"{name} of {version}, and the index is of {index.encoder_version}")


def explain_empty(index: ProductIndex, where: ProductFilter) -> str:
    """Return one line that says why no product passes a filter; if a category is the reason, which ones there are."""
    known = index.list_values("category")
    for category in where.categories:
        if not len(index.select(ProductFilter(categories=(category,)))):
            return f"no product is in category {category!r}; there are {', '.join(known[:20])}"
    return "no product passes the filter; allow more categories, brands, prices or tags"


def collapse_duplicates(index: ProductIndex, rows: Ints, order: Ints, top_k: int) -> tuple[Ints, dict[int, list[int]]]:
    """Return the best of each set of near-duplicates, in order, at most `top_k`, and those collapsed into each.

    Args:
        index: with image or text vectors.
        rows: [n], rows of the index.
        order: numbers from 0 to n - 1, best first; the first COLLAPSE_DEPTH * `top_k` are considered.
        top_k: most numbers to return.
    """
    kept: list[int] = []
    members: dict[int, list[int]] = {}
    considered = order[: COLLAPSE_DEPTH * top_k]
    vectors = [
        np.nan_to_num(index.take_vectors(name, rows[considered]))
        for name in ("image_vector", "text_vector")
        if name in index.vectors
    ]
    has_image = np.abs(vectors[0]).sum(axis=1) > 0
    positions: list[int] = []
    for position, number in enumerate(considered.tolist()):
        if positions:
            cosines = vectors[0][positions] @ vectors[0][position]
            if len(vectors) > 1:
                both = has_image[positions] & has_image[position]
                cosines = np.where(both, cosines, vectors[1][positions] @ vectors[1][position])
            nearest = int(np.argmax(cosines))
            if cosines[nearest] >= DUPLICATE_COSINE:
                members.setdefault(kept[nearest], []).append(number)
                continue
        if len(kept) == top_k:
            break
        kept.append(number)
        positions.append(position)
    return np.array(kept, np.int64), members


def _build_products(
    index: ProductIndex,
    sentence: Sentence,
    scored: ScoredProducts,
    scores: np.ndarray,
    order: Ints,
    duplicates: Mapping[int, Sequence[int]],
    calibration: SearchCalibration | None,
) -> pa.Table:
    """Return the table of `SearchResult.products`."""
    rows = scored.rows[order]
    products = index.take(rows)
    n = len(rows)
    probability = np.full(n, np.nan) if calibration is None else calibration.compute_probability(scores[order])
    collapsed: list[Ints] = [
        scored.rows[duplicates.get(number, ())] if number in duplicates else np.empty(0, np.int64)
        for number in order.tolist()
    ]
    names = [
        " ".join(index.take(np.asarray(one), ["product_id"])["product_id"].to_pylist()) or None for one in collapsed
    ]
    columns = {
        "rank": pa.array(np.arange(1, n + 1)),
        "score": pa.array(scores[order].astype(np.float64)),
        **{
            f"score_{part}": pa.array(scored.parts[number, order].astype(np.float64), from_pandas=True)
            for number, part in enumerate(PARTS)
        },
        "probability": pa.array(probability.astype(np.float64), from_pandas=True),
        "reasons": pa.array(list_reasons(sentence, products["title"].to_pylist(), scored, order), pa.string()),
        "duplicates": pa.array(names, pa.string()),
    }
    for name, column in columns.items():
        products = products.append_column(name, column)
    return products


def list_reasons(sentence: Sentence, titles: Sequence[str | None], scored: ScoredProducts, order: Ints) -> list[str]:
    """Return one line for each product in `order` that says why it was found.

    It names the sentence's words in the title, and those that the picture looks like or does not look like; without
    either, the part with the highest score.

    Args:
        sentence: the sentence.
        titles: [m], titles of the products in `order`.
        scored: n scored products.
        order: [m], numbers from 0 to n - 1.
    """
    reasons = []
    for title, number in zip(titles, order.tolist(), strict=True):
        in_title = set(segment_text(title or ""))
        said = [word for word in sentence.words if word in in_title]
        looks = dict(zip(scored.known_words, scored.words[:, number].tolist(), strict=True))
        seen = [f"{word} ({value:+.1f})" for word, value in looks.items() if value >= CLEARLY]
        unseen = [word for word in said if looks.get(word, 0.0) <= -CLEARLY]
        parts = [f"title says {', '.join(said)}"] * bool(said)
        parts += [f"picture looks like {', '.join(seen)}"] * bool(seen)
        parts += [f"picture does not look like {', '.join(unseen)}"] * bool(unseen)
        if not said and not seen:
            strongest = int(np.argmax(np.nan_to_num(scored.parts[:, number], nan=-np.inf)))
            parts.append(f"nearest by {PARTS[strongest]}")
        reasons.append("; ".join(parts))
    return reasons
