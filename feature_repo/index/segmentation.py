"""The words of a title or sentence, Chinese or English.

Chinese is cut by jieba's dictionary (rjieba). Latin words are lowercased; English function words are left out, and a
plural counts as its singular. Full-width characters count as their normal forms.
"""

import re
import unicodedata

import rjieba

_LATIN = re.compile(r"[a-z0-9]+(?:\.[0-9]+)?")
_FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "for",
        "from",
        "in",
        "is",
        "it",
        "of",
        "on",
        "or",
        "s",
        "the",
        "to",
        "with",
    ]
)


def segment_text(text: str) -> list[str]:
    """Return the words of a text, in their order, with repeats; empty for a text without letters and digits."""
    words = []
    for piece in rjieba.cut(unicodedata.normalize("NFKC", text).lower()):
        if not piece.isascii():
            words += [piece] * any(character.isalnum() for character in piece)
            continue
        latin = [word for word in _LATIN.findall(piece) if word not in _FUNCTION_WORDS]
        words += [_to_singular(word) for word in latin]
    return words


def _to_singular(word: str) -> str:
    """Return the singular of an English plural, by its ending; a short word and one that ends in `ss` stay."""
    if len(word) < 4 or not word.isalpha() or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word.removesuffix("s")
