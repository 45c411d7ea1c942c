"""The sentence of a search: checked, and split into words."""

from dataclasses import dataclass

from feature_repo.errors import InvalidInputError
from feature_repo.exported.encoder import ExportedEncoder
from feature_repo.index.product_index import ProductIndex
from feature_repo.index.segmentation import segment_text

MAX_CHARACTERS = 1_000
"""Longest sentence that is accepted."""


@dataclass(frozen=True)
class Sentence:
    """A sentence that the index or the encoder understands."""

    text: str
    """Without white space at both ends; inner white space is one blank."""
    words: tuple[str, ...]
    """Its words, each once, in their order."""


def parse_sentence(text: str, index: ProductIndex, encoder: ExportedEncoder) -> Sentence:
    """Return a sentence with its words.

    Raises:
        InvalidInputError: it is blank, has more than MAX_CHARACTERS, or neither a title of the index nor the tokenizer
            knows any word of it.
    """
    stripped = " ".join(text.split())
    if not stripped:
        raise InvalidInputError("the sentence is empty; say what to look for")
    if len(stripped) > MAX_CHARACTERS:
        raise InvalidInputError(
            f"the sentence has {len(stripped):,} characters; expected at most {MAX_CHARACTERS:,}: name what to look for"
        )
    words = tuple(dict.fromkeys(segment_text(stripped)))
    if not any(map(index.has_word, words)) and not encoder.knows(stripped):
        raise InvalidInputError(
            f"neither a title nor the encoder {encoder.encoder_version} knows a word of {stripped[:80]!r}; write it in "
            "the language of the titles"
        )
    return Sentence(stripped, words)
