"""Writes several captions for each image and chooses the best.

A candidate begins with words for what the tags are sure of. A plain one ends there. A lively one has these words in any
order, and the language head continues it with what is no statement at all: no word of the vocabulary, and no other
brand. Candidates that state anything else are dropped, also where a word arises between two others. The rest are ranked
by how probable the language head finds them, how well they match the image, and how sure the stated attributes are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_repo.vocabulary import Words
from producers.captions.facts import Fact, ProductFacts, find_statements
from producers.captions.prompts import CaptionOptions, is_of_language, join_words, list_prompts
from producers.encoders.captioner import BATCH_SIZE, Captioner
from producers.encoders.encoder import Pixels
from producers.encoders.training.towers import ImageFeatures

TEMPERATURE = 0.7
"""Divides the logits of lively continuations: the head keeps closer to what is probable."""
MATCH_WEIGHT = 10.0
"""What a cosine of 1 between line and image is worth, in nats of the mean log probability of a token."""
AGREEMENT_WEIGHT = 1.0
"""What a stated attribute that is certain is worth, in the same unit."""


@dataclass(frozen=True)
class CaptionedProduct:
    """A product version to be captioned."""

    facts: ProductFacts | None
    """What the tags say; None without tags."""
    brand: str | None
    """The brand that the shop states."""
    seed: int
    """A number that is the same if the caption is written again from the same inputs, 0 or more."""


@dataclass(frozen=True)
class Caption:
    """A caption, or the reason for which there is none."""

    text: str | None
    """The line; None if there is a `missing_reason`."""
    stated: tuple[Fact, ...]
    """The facts that the line states, the most probable first."""
    missing_reason: str | None
    """Why there is no line."""
    style: str
    """The style that applies to the product."""


@dataclass(frozen=True)
class ScoredLine:
    """A line that may be the caption of an image."""

    text: str
    stated: tuple[Fact, ...]
    """The facts that the line states, the most probable first."""
    fluency: float
    """Mean log probability of its tokens by the language head."""
    match: float
    """Cosine of line and image by the encoder's towers."""
    score: float
    """What the lines of an image are ranked by."""


@dataclass(frozen=True)
class RankedLines:
    """The lines for an image, or the reason for which there are none."""

    lines: tuple[ScoredLine, ...]
    """Different lines, the best first."""
    missing_reason: str | None
    """Why there are none."""
    style: str
    """The style that applies to the product."""


@dataclass(frozen=True)
class _Candidate:
    row: int
    """Number of the image."""
    text: str
    stated: tuple[Fact, ...]
    uniforms: np.ndarray
    """Random numbers for the continuation."""


def write_captions(
    captioner: Captioner,
    pixels: Pixels,
    products: Sequence[CaptionedProduct],
    vocabulary: Mapping[str, Words],
    brands: Collection[str],
    options: CaptionOptions,
) -> list[Caption]:
    """Write a caption for each image, in their order.

    Args:
        captioner: writes and scores lines.
        pixels: n images resized for the captioner, uint8 [n, height, width, 3].
        products: the products of the images.
        vocabulary: attribute -> value -> words. An attribute without a tag is never stated.
        brands: the brands of the shop; a caption names no other than the product's own.
        options: how captions are written.
    """
    ranked = rank_lines(captioner, pixels, products, vocabulary, brands, [options] * len(products))
    return [
        Caption(one.lines[0].text, one.lines[0].stated, None, one.style)
        if one.lines
        else Caption(None, (), one.missing_reason, one.style)
        for one in ranked
    ]


def rank_lines(
    captioner: Captioner,
    pixels: Pixels,
    products: Sequence[CaptionedProduct],
    vocabulary: Mapping[str, Words],
    brands: Collection[str],
    options: Sequence[CaptionOptions],
) -> list[RankedLines]:
    """Write several lines for each image, and rank them; in the order of the images.

    Args:
        captioner: writes and scores lines.
        pixels: n images resized for the captioner, uint8 [n, height, width, 3].
        products: the products of the images [n].
        vocabulary: attribute -> value -> words. An attribute without a tag is never stated.
        brands: the brands of the shop; a line names no other than the product's own.
        options: how the lines of each image are written [n].
    """
    ranked: list[RankedLines] = []
    for start in range(0, len(products), BATCH_SIZE):
        end = start + BATCH_SIZE
        images = captioner.encode_images(pixels[start:end])
        ranked += _rank_batch(captioner, images, products[start:end], vocabulary, brands, options[start:end])
    return ranked


def _rank_batch(
    captioner: Captioner,
    images: ImageFeatures,
    products: Sequence[CaptionedProduct],
    vocabulary: Mapping[str, Words],
    brands: Collection[str],
    options: Sequence[CaptionOptions],
) -> list[RankedLines]:
    candidates: list[_Candidate] = []
    reasons: list[str | None] = []
    styles = [
        own.choose_style(product.facts.category if product.facts else None)
        for product, own in zip(products, options, strict=True)
    ]
    for row, (product, style, own) in enumerate(zip(products, styles, options, strict=True)):
        rng = np.random.default_rng([own.seed, product.seed])
        prompts, reason = list_prompts(product.facts, style, vocabulary, own, rng)
        reasons.append(reason)
        for text, stated in prompts.items():
            candidates.append(_Candidate(row, text, stated, rng.random(captioner.line_tokens, np.float32)))
    lively = [candidate for candidate in candidates if styles[candidate.row] == "lively"]
    if lively:
        continued = _continue_lines(captioner, images, lively, products, vocabulary, brands, options)
        candidates = [one for one in candidates if styles[one.row] != "lively"] + continued
    lines: list[dict[str, ScoredLine]] = [{} for _ in products]
    if candidates:
        rows = np.array([candidate.row for candidate in candidates])
        fluency, match = captioner.score(images, rows, [candidate.text for candidate in candidates])
        for candidate, fluent, matching in zip(candidates, fluency.tolist(), match.tolist(), strict=True):
            agreement = sum(fact.probability for fact in candidate.stated)
            score = fluent + MATCH_WEIGHT * matching + AGREEMENT_WEIGHT * agreement
            line = ScoredLine(candidate.text, candidate.stated, fluent, matching, score)
            lines[candidate.row].setdefault(line.text, line)
    return [
        RankedLines(tuple(sorted(of_image.values(), key=lambda line: -line.score)), reason, style)
        for of_image, reason, style in zip(lines, reasons, styles, strict=True)
    ]


def _continue_lines(
    captioner: Captioner,
    images: ImageFeatures,
    candidates: Sequence[_Candidate],
    products: Sequence[CaptionedProduct],
    vocabulary: Mapping[str, Words],
    brands: Collection[str],
    options: Sequence[CaptionOptions],
) -> list[_Candidate]:
    """Return the candidates with the longest continuation that fits, states nothing and names no other brand."""
    words = [word for values in vocabulary.values() for words in values.values() for word in words]
    continuations = captioner.complete(
        images,
        np.array([candidate.row for candidate in candidates]),
        [candidate.text for candidate in candidates],
        forbidden=words,
        temperature=TEMPERATURE,
        uniforms=np.stack([candidate.uniforms for candidate in candidates]),
    )
    result = []
    for candidate, texts in zip(candidates, continuations, strict=True):
        text, own, wanted = candidate.text, (products[candidate.row].brand or "").lower(), options[candidate.row]
        stated = {(fact.tag, fact.value) for fact in candidate.stated}
        for continuation in reversed(texts):
            line = join_words([candidate.text, continuation], wanted.language)
            is_allowed = len(line) <= wanted.length and is_of_language(line, wanted.language)
            if (
                is_allowed
                and find_statements(line, vocabulary) == stated
                and not any(brand in continuation.lower() for brand in brands if brand != own)
            ):
                text = line
                break
        result.append(_Candidate(candidate.row, text, candidate.stated, candidate.uniforms))
    return result
