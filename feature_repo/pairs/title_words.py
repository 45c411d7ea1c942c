"""The words of titles, in Chinese and in languages with spaces, for the comparison of two products.

Text is NFKC-normalized and lower case. A run of ASCII letters and digits is one word, with inner hyphens, dots and
slashes removed: `DMW-BLB13` and `dmwblb13` are the same word, and `10.1` becomes `101`. A run of any other letters,
such as Chinese ones, gives its overlapping pairs of characters.
"""

import re
import unicodedata

MODEL_LENGTH = 4
"""Minimum length of a model number in characters."""

_RUN = re.compile(r"[a-z0-9](?:[a-z0-9./-]*[a-z0-9])?|[^\W_a-z0-9]+")
_SEPARATOR = re.compile(r"[./-]")


def split_words(text: str | None) -> list[str]:
    """Return the words of a text in their order, with repeats; empty for None."""
    if not text:
        return []
    words = []
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).lower()):
        if run[0].isascii():
            words.append(_SEPARATOR.sub("", run))
        elif len(run) == 1:
            words.append(run)
        else:
            words += [run[i : i + 2] for i in range(len(run) - 1)]
    return words


def split_grams(text: str | None) -> list[str]:
    """Return all runs of 3, 4 and 5 characters of the words of a text, joined without spaces."""
    joined = join_words(text)
    return [joined[i : i + n] for n in (3, 4, 5) for i in range(len(joined) - n + 1)]


def join_words(text: str | None) -> str:
    """Return the words of a text joined without spaces, each Chinese character once."""
    if not text:
        return ""
    runs = _RUN.findall(unicodedata.normalize("NFKC", text).lower())
    return "".join(_SEPARATOR.sub("", run) for run in runs)


def find_model_numbers(words: list[str]) -> set[str]:
    """Return the words that look like model numbers.

    They are ASCII, have at least MODEL_LENGTH characters and a digit, and a letter or at least 5 digits.
    """
    return {
        word
        for word in words
        if len(word) >= MODEL_LENGTH
        and word.isascii()
        and any(character.isdigit() for character in word)
        and (len(word) > MODEL_LENGTH or not word.isdigit())
    }


def compare_model_numbers(left: set[str], right: set[str]) -> float:
    """Return the longest common run of characters of two model numbers, as a share of the shorter one.

    It is the largest over all pairs, in [0, 1]; runs of under MODEL_LENGTH characters count as 0. NaN if one of the
    sides has no model number. Sellers leave out prefixes and endings (`KDL52W4100`, `52W4100B`), so equality is too
    strict.
    """
    if not left or not right:
        return float("nan")
    if left & right:
        return 1.0
    return max(_measure_common_run(a, b) / min(len(a), len(b)) for a in left for b in right)


def _measure_common_run(left: str, right: str) -> int:
    """Return the length of the longest common run of characters; 0 if it is under MODEL_LENGTH."""
    best = 0
    for start in range(len(left)):
        while start + best < len(left) and left[start : start + best + 1] in right:
            best += 1
    return best if best >= MODEL_LENGTH else 0
