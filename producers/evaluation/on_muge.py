"""MUGE: an encoder, or a file of predictions, measured on a split that has answers."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path

import numpy as np

from feature_repo import extras
from feature_repo.errors import InvalidInputError
from feature_repo.evaluation import muge
from feature_repo.evaluation.muge import CAPTIONS, PICTURES, QUERIES, TOP_K, Query
from feature_repo.files.json_lines import Malformed, require_well_formed
from producers.evaluation.encoding import CHUNK, TextImageEncoder
from producers.evaluation.measures import Measure, measure_recall
from producers.evaluation.retrieval import rank_pictures
from producers.evaluation.run import EvaluationRun


def evaluate_retrieval(source: Path, split: str, predictions: Path, now: datetime) -> EvaluationRun:
    """Measure predicted pictures: R@1, R@5, R@10 and their mean.

    Args:
        source: folder of the data set; only the split's queries are read.
        split: the split; its queries must have answers.
        predictions: the file, as it is submitted.
        now: time of the run.

    Raises:
        NotFoundError: a file does not exist.
        InvalidInputError: a line of a file is malformed, the split has no answers, or a query has no prediction.
    """
    queries = read_answered_queries(source, split)
    malformed: Malformed = []
    ranked = muge.read_predictions(predictions, malformed)
    require_well_formed(malformed)
    missing = [query.id for query in queries if query.id not in ranked]
    if missing:
        raise InvalidInputError(
            f"{predictions}: {len(missing):,} of {len(queries):,} queries have no prediction, such as {missing[0]}"
        )
    truth = {query.id: query.image_ids for query in queries}
    notes = _count_others(len(ranked.keys() - truth.keys()), "predictions of other queries are not counted")
    measures = measure_recall(ranked, truth)
    documents = len({image for ids in ranked.values() for image in ids})
    return EvaluationRun(f"muge {split}", str(source), str(predictions), now, len(truth), documents, measures, notes)


def evaluate_encoder(
    source: Path, split: str, encoder: TextImageEncoder, now: datetime, progress: Callable[[int], None]
) -> tuple[EvaluationRun, dict[int, list[int]]]:
    """Measure an encoder: each query is compared with all pictures of its split.

    Args:
        source: folder of the data set.
        split: the split. Without answers nothing is measured, and the predictions alone are the result.
        encoder: encodes queries and pictures.
        now: time of the run.
        progress: called with the number of pictures encoded so far.

    Returns:
        The run, and the TOP_K image ids of each query, best first; fewer if the split has fewer usable pictures.

    Raises:
        NotFoundError: a file does not exist.
        InvalidInputError: a line is malformed, or an image id is not an integer.
    """
    malformed: Malformed = []
    queries = read_queries(source, split)
    file = muge.require_file(source, split, PICTURES)
    stream = muge.read_pictures(file, malformed)
    ids: list[int] = []
    vectors = []
    while pictures := list(islice(stream, CHUNK)):
        ids += [_to_integer(file, image_id) for image_id, _ in pictures]
        vectors.append(encoder.encode_pictures([content for _, content in pictures]))
        progress(len(ids))
    require_well_formed(malformed)
    if not ids:
        raise InvalidInputError(f"{file}: no picture")
    images = np.concatenate(vectors)
    ranking = rank_pictures(encoder.encode_texts([query.text for query in queries]), images, TOP_K)
    ranked = {
        query.id: [ids[position] for position in row.tolist() if position >= 0]
        for query, row in zip(queries, ranking.pictures, strict=True)
    }
    truth = {query.id: query.image_ids for query in queries if query.image_ids}
    unusable = int((~np.isfinite(images).all(axis=1)).sum())
    notes = [
        *_count_others(unusable, "pictures cannot be decoded, and are never found"),
        *_count_others(len(queries) - len(truth), "queries have no answers, and are not counted"),
    ]
    measures = measure_recall(ranked, truth) if truth else {}
    run = EvaluationRun(f"muge {split}", str(source), encoder.version, now, len(truth), len(ids), measures, notes)
    return run, ranked


def evaluate_captions(source: Path, split: str, predictions: Path, now: datetime) -> EvaluationRun:
    """Measure predicted captions: BLEU-4 and CIDEr-D, as feature_repo/evaluation/caption_scores.py defines them.

    Args:
        source: folder of the data set; only the split's captions are read.
        split: the split.
        predictions: lines of image_id and one text.
        now: time of the run.

    Raises:
        NotFoundError: a file does not exist.
        InvalidInputError: a line of a file is malformed, or a picture has no caption, or several.
    """
    malformed: Malformed = []
    references = muge.read_captions(muge.require_file(source, split, CAPTIONS), malformed)
    require_well_formed(malformed)
    captions = muge.read_captions(predictions, malformed)
    require_well_formed(malformed)
    wrong = [image_id for image_id in references if len(captions.get(image_id, ())) != 1]
    if wrong or not references:
        raise InvalidInputError(
            f"{predictions}: {len(wrong):,} of {len(references):,} pictures have no caption, or several, such as "
            f"{wrong[0] if wrong else 'none'}; expected one for each picture of the split {split}"
        )
    texts = [captions[image_id][0] for image_id in references]
    measures = _score_captions(texts, list(references.values()))
    notes = _count_others(len(captions.keys() - references.keys()), "captions of other pictures are not counted")
    return EvaluationRun(
        f"muge captions {split}", str(source), str(predictions), now, len(texts), len(texts), measures, notes
    )


def read_queries(source: Path, split: str) -> list[Query]:
    """Return the queries of a split.

    Raises:
        NotFoundError: the split has no file of queries.
        InvalidInputError: a line is malformed, or there is no query.
    """
    malformed: Malformed = []
    file = muge.require_file(source, split, QUERIES)
    queries = muge.read_queries(file, malformed)
    require_well_formed(malformed)
    if not queries:
        raise InvalidInputError(f"{file}: no query")
    return queries


def read_answered_queries(source: Path, split: str) -> list[Query]:
    """Return the queries of a split. Each must have answers. Raises what `read_queries` does."""
    queries = read_queries(source, split)
    unanswered = sum(not query.image_ids for query in queries)
    if unanswered:
        raise InvalidInputError(
            f"{source}: {unanswered:,} of {len(queries):,} queries of the split {split} have no answers; take another"
        )
    return queries


def _score_captions(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, Measure]:
    """Return BLEU-4 and CIDEr-D; both are of the whole set, without an interval."""
    extras.require("rank", "sacrebleu")
    from feature_repo.evaluation import caption_scores

    bleu = caption_scores.compute_bleu4(captions, references)
    cider = caption_scores.compute_cider_d(captions, references)
    return {"BLEU-4": Measure(bleu, bleu, bleu), "CIDEr-D": Measure(cider, cider, cider)}


def _to_integer(file: Path, image_id: str) -> int:
    if not image_id.isdecimal():
        raise InvalidInputError(f"{file}: image id {image_id!r} is not an integer")
    return int(image_id)


def _count_others(count: int, what: str) -> list[str]:
    return [f"{count:,} {what}"] if count else []
