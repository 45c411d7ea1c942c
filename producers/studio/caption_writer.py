"""Writes lines about the pictures of several requests at once: tags them where the store does not, then ranks lines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from feature_repo.images.geometry import Geometry
from feature_repo.vocabulary import Words
from producers.captions.candidates import CaptionedProduct, ScoredLine, rank_lines
from producers.captions.facts import Fact, ProductFacts
from producers.captions.prompts import CaptionOptions
from producers.encoders.captioner import Captioner
from producers.studio.picture_tagger import PictureTagger

PixelArray = NDArray[np.uint8]


@dataclass(frozen=True)
class CaptionJob:
    """A decoded picture, and what is known of it."""

    pixels: PixelArray
    """The picture resized for the captioner, uint8 [height, width, 3]."""
    tagged: PixelArray | Image.Image | None
    """The picture for the tagger, if it has to say what the picture shows; None if `facts` do."""
    title: str | None
    facts: ProductFacts | None
    """What the tags of the store say; None without tags, or if `tagged` is there."""
    given: tuple[Fact, ...]
    """What the caller says; it replaces what the tags say about the same attributes."""
    brand: str | None
    seed: int
    """A number that depends on the picture only, 0 or more."""
    options: CaptionOptions
    on_start: Callable[[], None]
    """Called when the model begins with it."""


@dataclass(frozen=True)
class CaptionAnswer:
    """The lines for a picture, or the reason for which there are none."""

    lines: tuple[ScoredLine, ...]
    """Different lines, the best first."""
    missing_reason: str | None
    """Why there are none."""
    facts: tuple[Fact, ...]
    """All that is sure enough to be stated, the most probable first."""
    given: frozenset[str]
    """The attributes of `facts` that the caller gave."""
    options: CaptionOptions


class CaptionWriter:
    """Writes lines. One thread may call `write` at a time.

    Args:
        captioner: writes and scores lines.
        tagger: tags pictures that are no products of the store; None refuses to.
        vocabulary: attribute -> value -> words.
        list_brands: returns the brands of the shop in lower case; a line names no other than the product's own.
    """

    def __init__(
        self,
        captioner: Captioner,
        tagger: PictureTagger | None,
        vocabulary: Mapping[str, Words],
        list_brands: Callable[[], frozenset[str]],
    ) -> None:
        self.vocabulary = vocabulary
        self.encoder_version = captioner.version
        self._captioner = captioner
        self._tagger = tagger
        self._list_brands = list_brands

    @property
    def geometry(self) -> Geometry:
        """How pictures are resized for the captioner."""
        return self._captioner.geometry

    @property
    def tagger(self) -> PictureTagger | None:
        """Tags pictures that are no products of the store."""
        return self._tagger

    def write(self, jobs: Sequence[CaptionJob]) -> list[CaptionAnswer]:
        """Return the lines for the pictures of jobs, in their order."""
        for job in jobs:
            job.on_start()
        facts = [merge_facts(found, job.given) for found, job in zip(self._find_facts(jobs), jobs, strict=True)]
        products = [CaptionedProduct(own, job.brand, job.seed) for own, job in zip(facts, jobs, strict=True)]
        ranked = rank_lines(
            self._captioner,
            np.stack([job.pixels for job in jobs]),
            products,
            self.vocabulary,
            self._list_brands(),
            [job.options for job in jobs],
        )
        return [
            CaptionAnswer(
                one.lines,
                None if one.lines else one.missing_reason,
                () if own is None else own.sure,
                frozenset(fact.tag for fact in job.given),
                job.options,
            )
            for one, own, job in zip(ranked, facts, jobs, strict=True)
        ]

    def _find_facts(self, jobs: Sequence[CaptionJob]) -> list[ProductFacts | None]:
        """Return what the tags say about each picture, by the store or by the tagger."""
        facts = [job.facts for job in jobs]
        untagged = [row for row, job in enumerate(jobs) if job.tagged is not None]
        if untagged and self._tagger is not None:
            pictures = [picture for job in jobs if (picture := job.tagged) is not None]
            found = self._tagger.find_facts(pictures, [jobs[row].title for row in untagged])
            for row, own in zip(untagged, found, strict=True):
                facts[row] = own
        return facts


def merge_facts(found: ProductFacts | None, given: Sequence[Fact]) -> ProductFacts | None:
    """Return what the tags say, with what the caller says instead of the tags of the same names.

    The values of the caller come first, in the order given. None if neither says anything.
    """
    if found is None and not given:
        return None
    names = {fact.tag for fact in given}
    others = () if found is None else tuple(fact for fact in found.sure if fact.tag not in names)
    category = next((fact.value for fact in given if fact.tag == "category"), found.category if found else None)
    return ProductFacts((*given, *others), category)
