"""Scores of captions against reference texts: BLEU-4 by sacrebleu, and CIDEr-D (Vedantam et al. 2015, section 4).

Both take any number of references for each caption. A Chinese character is a token of its own, and so is a word of any
other script, as sacrebleu's tokenizer `zh` divides texts. The reports of captions and of MUGE use these functions.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

LONGEST = 4
"""Tokens of the longest sequences that are compared."""
LENGTH_DEVIATION = 6.0
"""Sigma of the penalty of CIDEr-D for a caption that is longer or shorter than its reference, in tokens."""

References = Sequence[Sequence[str]]
"""The reference texts of each caption, at least one."""
_Vectors = tuple[dict[tuple[str, ...], float], ...]
"""Sequence -> weight, for each length from 1 to LONGEST."""


def compute_bleu4(captions: Sequence[str], references: References) -> float:
    """Return the corpus BLEU-4 of captions, in [0, 100].

    Args:
        captions: n captions; an empty one counts as a caption without tokens.
        references: the references of each caption, in the same order.
    """
    most = max(map(len, references))
    streams: list[Any] = [
        [texts[number] if number < len(texts) else None for texts in references] for number in range(most)
    ]
    return float(BLEU(tokenize="zh").corpus_score(captions, streams).score)


def describe_bleu4() -> str:
    """Return how sacrebleu computes `compute_bleu4`: its version and settings, in its own format."""
    bleu = BLEU(tokenize="zh")
    bleu.corpus_score(["a"], [["a"]])
    return str(bleu.get_signature())


def compute_cider_d(captions: Sequence[str], references: References) -> float:
    """Return the CIDEr-D of captions times 100, as papers state it: 0 or more, 1,000 if each equals its references.

    A sequence of tokens weighs by how few captions have it in their references, so a single caption gives 0: every
    sequence of its references is in all of them.

    Args:
        captions: n captions.
        references: the references of each caption, in the same order.
    """
    tokenize = BLEU(tokenize="zh").tokenizer
    tokenized = [[str(tokenize(text)).split() for text in texts] for texts in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for texts in tokenized:
        frequency.update({sequence for tokens in texts for sequence in _count_sequences(tokens)})
    log_size = math.log(len(captions))

    def weigh(tokens: list[str]) -> _Vectors:
        vectors: _Vectors = tuple({} for _ in range(LONGEST))
        for sequence, count in _count_sequences(tokens).items():
            rarity = log_size - math.log(max(1, frequency[sequence]))
            vectors[len(sequence) - 1][sequence] = count * rarity
        return vectors

    scores = []
    for caption, texts in zip(captions, tokenized, strict=True):
        tokens = str(tokenize(caption)).split()
        weights = weigh(tokens)
        similarities = [
            _compare(weights, weigh(reference))
            * math.exp(-((len(tokens) - len(reference)) ** 2) / (2 * LENGTH_DEVIATION**2))
            for reference in texts
        ]
        scores.append(10 * np.mean(similarities))
    return float(100 * np.mean(scores))


def _count_sequences(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Return how often each sequence of 1 to LONGEST tokens occurs."""
    return Counter(
        tuple(tokens[start : start + length])
        for length in range(1, LONGEST + 1)
        for start in range(len(tokens) - length + 1)
    )


def _compare(caption: _Vectors, reference: _Vectors) -> float:
    """Return the mean cosine over the lengths, in [0, 1]; what a caption repeats does not count twice."""
    cosines = []
    for ours, theirs in zip(caption, reference, strict=True):
        product = sum(min(weight, theirs[key]) * theirs[key] for key, weight in ours.items() if key in theirs)
        norm = math.sqrt(sum(x * x for x in ours.values()) * sum(x * x for x in theirs.values()))
        cosines.append(product / norm if norm else 0.0)
    return float(np.mean(cosines))
