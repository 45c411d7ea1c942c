"""All measures of folders of generated pictures against real pictures.

    NAME                   share of the pictures that show the asked value of attribute NAME, by the classifier
    NAME chance            that share if the pictures were given to the sentences at random
    NAME real              that share for held-out real pictures: the classifier's own accuracy
    NAME relative          NAME / NAME real
    R@1, R@5, ...          share of pictures whose own sentence is among the first k of all sentences, by the encoder
    R@k real               the same for as many held-out real pictures with sentences
    Frechet distance       of the encoder's vectors of generated pictures from those of real ones
    Frechet distance real  the same for as many held-out real pictures: what a perfect generator would have
    diversity              mean distance of two pictures of one sentence
    diversity real         mean distance of two held-out real pictures with the same attributes

Real pictures are split by group: those that train the classifier and those that test it share no group.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from feature_repo.errors import InvalidInputError
from producers.encoders.encoder import Vectors
from producers.evaluation.encoding import TextImageEncoder
from producers.evaluation.measures import CUTOFFS, Measure, measure_recall
from producers.evaluation.retrieval import rank_pictures
from producers.evaluation.run import EvaluationRun
from producers.tags.split import TEST, assign_splits
from producers.text_to_image.judging.classifier import AttributeClassifier, train_classifier
from producers.text_to_image.judging.figures import (
    compute_chance,
    compute_diversity,
    compute_frechet_distance,
    measure_ratio,
    measure_share,
)
from producers.text_to_image.judging.pictures import AttributedPictures, Pixels, Size, load_pixels

MAX_SIDE = 64
"""Longer side, in pixels, at which the classifier sees pictures; larger ones are reduced."""


@dataclass(frozen=True)
class RealPictures:
    """What generated pictures are compared with."""

    name: str
    """Of the folder."""
    size: Size
    """At which the classifier sees pictures, real and generated."""
    classifier: AttributeClassifier
    training: int
    """Pictures that the classifier was trained on."""
    held_out: AttributedPictures
    """Usable pictures of groups that trained nothing."""
    predictions: dict[str, NDArray[np.str_]]
    """Attribute -> what the classifier sees in each held-out picture."""
    vectors: Vectors
    """Of the held-out pictures."""
    reference: Vectors
    """Of pictures that trained the classifier: the real side of every Fréchet distance."""
    refused: Counter[str]
    """Unusable pictures by reason."""


def prepare_real_pictures(
    real: AttributedPictures,
    names: tuple[str, ...],
    generated_size: Size,
    encoder: TextImageEncoder,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RealPictures:
    """Train the classifier on real pictures and encode the held-out ones.

    Args:
        real: pictures with attributes and groups; by a hash of its group, each goes to training (80%) or is held out.
        names: attributes to judge.
        generated_size: height and width of the generated pictures.
        encoder: of texts and pictures.
        seed: of the classifier.
        progress: called with finished and total steps of the training.

    Raises:
        InvalidInputError: there are too few pictures to train on, or none is held out.
    """
    scale = min(1.0, MAX_SIDE / max(generated_size))
    size = round(generated_size[0] * scale), round(generated_size[1] * scale)
    usable, pixels, refused = load_pixels(real, size)
    is_test = assign_splits(usable.groups) == TEST
    if not is_test.any():
        raise InvalidInputError(f"{real.folder}: no real picture is held out; expected pictures of many groups")
    training, held_out = usable.take(np.flatnonzero(~is_test)), usable.take(np.flatnonzero(is_test))
    values = {name: training.values(name) for name in names}
    classifier = train_classifier(pixels[~is_test], values, seed=seed, progress=progress)
    # The Fréchet distance needs as many reference pictures as are held out, not all.
    drawn = np.random.default_rng(seed).permutation(len(training))[: max(len(held_out), 2)]
    return RealPictures(
        real.folder.name,
        size,
        classifier,
        len(training),
        held_out,
        classifier.predict(pixels[is_test]),
        encoder.encode_pictures(held_out.paths),
        encoder.encode_pictures(training.take(drawn).paths),
        refused,
    )


def judge_pictures(
    generated: AttributedPictures, real: RealPictures, encoder: TextImageEncoder, now: datetime
) -> EvaluationRun:
    """Measure one folder of generated pictures.

    Args:
        generated: pictures with their sentences and the attributes that the sentences ask for.
        real: from `prepare_real_pictures`, with the same encoder.
        encoder: of texts and pictures; it must read the language of the sentences.
        now: time of the measurement, with a time zone.

    Raises:
        InvalidInputError: no picture is usable, or an asked value does not occur among the real pictures.
    """
    usable, pixels, refused = load_pixels(generated, real.size)
    if not len(usable):
        raise InvalidInputError(f"{generated.folder}: none of its {len(generated):,} pictures can be used")
    vectors = encoder.encode_pictures(usable.paths)
    measures: dict[str, Measure] = {}
    for name, values in real.classifier.values.items():
        measures |= _measure_attribute(name, values, usable, pixels, real)
    measures |= _measure_retrieval(usable, vectors, encoder, "", None)
    sentences = len(set(usable.texts))
    measures |= _measure_retrieval(real.held_out, real.vectors, encoder, " real", sentences)
    measures |= _measure_vectors(usable, vectors, real)
    notes = [
        f"classifier: {real.training:,} real pictures of {real.size[0]} x {real.size[1]} pixels; "
        f"{len(real.held_out):,} of other groups held out",
        f"encoder: {encoder.version}",
        *(f"{count:,} generated pictures left out: {reason}" for reason, count in sorted(refused.items())),
        *(f"{count:,} real pictures left out: {reason}" for reason, count in sorted(real.refused.items())),
    ]
    return EvaluationRun(
        f"generated pictures, judged by {real.name}",
        str(generated.folder),
        generated.folder.name,
        now,
        sentences,
        len(usable),
        measures,
        notes,
    )


def _measure_attribute(
    name: str, values: tuple[str, ...], pictures: AttributedPictures, pixels: Pixels, real: RealPictures
) -> dict[str, Measure]:
    """Measure one attribute on the pictures that were asked for a value of it; without any, the shares are NaN."""
    asked = pictures.values(name)
    if unknown := sorted({value for value in asked if value is not None} - set(values)):
        raise InvalidInputError(
            f"{pictures.folder}: {name} {unknown[0]!r} does not occur among the real pictures that train the "
            f"classifier; expected one of {', '.join(values)}"
        )
    rows = [row for row, value in enumerate(asked) if value is not None]
    wanted = [str(asked[row]) for row in rows]
    shown = real.classifier.predict(pixels[rows])[name].tolist()
    units: list[Hashable] = [pictures.texts[row] for row in rows]
    share = measure_share([one == other for one, other in zip(wanted, shown, strict=True)], units)
    truth = real.held_out.values(name)
    known = [row for row, value in enumerate(truth) if value is not None]
    on_real = measure_share([truth[row] == real.predictions[name][row] for row in known], known)
    chance = compute_chance(wanted, shown)
    return {
        name: share,
        f"{name} chance": Measure(chance, chance, chance),
        f"{name} real": on_real,
        f"{name} relative": measure_ratio(share, on_real, len(set(units)), len(known)),
    }


def _measure_retrieval(
    pictures: AttributedPictures, vectors: Vectors, encoder: TextImageEncoder, suffix: str, sentences: int | None
) -> dict[str, Measure]:
    """Return R@k of finding a picture's own sentence among all of their sentences; without sentences, nothing.

    Args:
        pictures: with their sentences.
        vectors: of the pictures.
        encoder: of the sentences.
        suffix: ends the names of the measures.
        sentences: how many different sentences count, the first ones; None counts all.
    """
    different = list(dict.fromkeys(filter(None, pictures.texts)))[:sentences]
    if not different:
        return {}
    position = {text: number for number, text in enumerate(different)}
    rows = [row for row, text in enumerate(pictures.texts) if text in position]
    ranking = rank_pictures(vectors[rows], encoder.encode_texts(different), max(CUTOFFS))
    ranked = dict(enumerate(ranking.pictures.tolist()))
    truth = {number: [position[pictures.texts[row]]] for number, row in enumerate(rows)}
    recall = measure_recall(ranked, truth)
    return {f"{name}{suffix}": measure for name, measure in recall.items()}


def _measure_vectors(pictures: AttributedPictures, vectors: Vectors, real: RealPictures) -> dict[str, Measure]:
    """Measure how alike the distributions of vectors are, with equal numbers of pictures, and how they vary."""
    sides = [side[np.isfinite(side).all(axis=1)] for side in (vectors, real.vectors, real.reference)]
    count, rng = min(map(len, sides)), np.random.default_rng(0)
    generated, held_out, reference = (side[rng.permutation(len(side))[:count]] for side in sides)
    figures = {
        "Frechet distance": compute_frechet_distance(generated, reference) if count > 1 else float("nan"),
        "Frechet distance real": compute_frechet_distance(held_out, reference) if count > 1 else float("nan"),
        "diversity": _measure_diversity(vectors, pictures.texts),
        "diversity real": _measure_diversity(
            real.vectors,
            [tuple(one.get(name) for name in real.classifier.values) for one in real.held_out.attributes],
        ),
    }
    return {name: Measure(value, value, value) for name, value in figures.items()}


def _measure_diversity(vectors: Vectors, units: Sequence[Hashable]) -> float:
    usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
    return compute_diversity(vectors[usable], [units[row] for row in usable.tolist()])
