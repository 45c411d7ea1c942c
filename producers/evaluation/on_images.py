"""A folder of pictures in Hugging Face's image-folder form: its own texts, or queries with TREC judgements.

qrels    QUERY 0 DOCUMENT RELEVANCE, separated by blanks; a document is a picture's file_name
queries  QUERY, tab, text
run      QUERY Q0 DOCUMENT RANK SCORE NAME
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from feature_repo.errors import InvalidInputError
from feature_repo.files.json_lines import Malformed, read_lines, refuse_line, require_well_formed
from producers.encoders.encoder import Vectors
from producers.evaluation.encoding import TextImageEncoder
from producers.evaluation.image_folder import FolderPicture, read_image_folder
from producers.evaluation.measures import CUTOFFS, measure_recall, measure_trec
from producers.evaluation.retrieval import rank_pictures
from producers.evaluation.run import EvaluationRun

DEPTH = 100
"""Pictures of a run for each query."""

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]


def evaluate_folder(folder: Path, encoder: TextImageEncoder, now: datetime) -> EvaluationRun:
    """Measure text to image on the texts of the pictures: R@1, R@5, R@10 and their mean.

    Each text is a query once. A picture is true for a text if it has that text.

    Raises:
        NotFoundError: there is no metadata.jsonl.
        InvalidInputError: a line is malformed, or no picture has a text.
    """
    pictures = read_image_folder(folder)
    texts = list(dict.fromkeys(text for picture in pictures for text in picture.texts))
    if not texts:
        raise InvalidInputError(f"{folder}: no picture has a text; give --queries and --qrels")
    truth: dict[int, list[int]] = {number: [] for number in range(len(texts))}
    number_of = {text: number for number, text in enumerate(texts)}
    for position, picture in enumerate(pictures):
        for text in picture.texts:
            truth[number_of[text]].append(position)
    vectors = encoder.encode_pictures([picture.path for picture in pictures])
    ranking = rank_pictures(encoder.encode_texts(texts), vectors, max(CUTOFFS))
    ranked = {number: row.tolist() for number, row in enumerate(ranking.pictures)}
    measures = measure_recall(ranked, truth)
    notes = _count_unusable(vectors)
    return EvaluationRun(
        f"images {folder.name}", str(folder), encoder.version, now, len(texts), len(pictures), measures, notes
    )


def evaluate_judged_folder(
    folder: Path, queries: Path, qrels: Path, encoder: TextImageEncoder, now: datetime
) -> tuple[EvaluationRun, Run]:
    """Measure the search of judged queries among the pictures of a folder, by trec_eval.

    Args:
        folder: the pictures; their texts are not used.
        queries: file of queries.
        qrels: file of judgements.
        encoder: encodes queries and pictures.
        now: time of the evaluation.

    Returns:
        The evaluation, and the first DEPTH pictures of each query with their cosines.

    Raises:
        NotFoundError: there is no metadata.jsonl.
        InvalidInputError: a line of a file is malformed, or a judged query has no text.
    """
    pictures, judged, texts = read_image_folder(folder), read_qrels(qrels), read_texts(queries)
    if missing := sorted(judged.keys() - texts.keys()):
        raise InvalidInputError(f"{queries}: {len(missing):,} judged queries have no text, such as {missing[0]}")
    names = list(judged)
    vectors = encoder.encode_pictures([picture.path for picture in pictures])
    ranking = rank_pictures(encoder.encode_texts([texts[name] for name in names]), vectors, DEPTH)
    run = {name: _name_documents(pictures, *rows) for name, *rows in zip(names, *ranking, strict=True)}
    measures = measure_trec(run, judged)
    there = {picture.file_name for picture in pictures}
    unknown = sum(document not in there for documents in judged.values() for document in documents)
    notes = [
        *_count_unusable(vectors),
        *([f"{unknown:,} judged documents are not in the folder, and are never found"] if unknown else []),
    ]
    name = f"{qrels.name} {folder.name}"
    return EvaluationRun(name, str(folder), encoder.version, now, len(judged), len(pictures), measures, notes), run


def evaluate_run(qrels: Path, run: Path, now: datetime) -> EvaluationRun:
    """Measure a TREC run of any system, by trec_eval.

    Raises:
        InvalidInputError: a line of a file is malformed.
    """
    judged, scored = read_qrels(qrels), read_run(run)
    documents = len({document for ranked in scored.values() for document in ranked})
    others = len(scored.keys() - judged.keys())
    notes = [f"{others:,} queries of the run are not judged, and are not counted"] if others else []
    return EvaluationRun(
        qrels.name, str(qrels), str(run), now, len(judged), documents, measure_trec(scored, judged), notes
    )


def read_qrels(file: Path) -> Qrels:
    """Return the relevance of each judged document by query.

    Raises:
        InvalidInputError: a line does not have four parts, its relevance is no integer, or a document is judged twice
            for a query; or no query has a relevant document.
    """
    malformed: Malformed = []
    judged: dict[str, dict[str, int]] = {}
    for number, line in read_lines(file, malformed):
        parts = line.split()
        if len(parts) != 4 or not parts[3].lstrip("-").isdecimal():
            malformed.append(refuse_line(file, number, "expected QUERY 0 DOCUMENT RELEVANCE", line))
        elif parts[2] in judged.setdefault(parts[0], {}):
            malformed.append(refuse_line(file, number, f"{parts[2]} is judged twice for {parts[0]}", line))
        else:
            judged[parts[0]][parts[2]] = int(parts[3])
    require_well_formed(malformed)
    relevant = {query: documents for query, documents in judged.items() if max(documents.values(), default=0) > 0}
    if not relevant:
        raise InvalidInputError(f"{file}: no query has a relevant document")
    return relevant


def read_texts(file: Path) -> dict[str, str]:
    """Return the text of each query.

    Raises:
        InvalidInputError: a line has no tab, no text, or a query occurs twice.
    """
    malformed: Malformed = []
    texts: dict[str, str] = {}
    for number, line in read_lines(file, malformed):
        query, _, text = line.partition("\t")
        if not query.strip() or not text.strip():
            malformed.append(refuse_line(file, number, "expected QUERY, a tab and a text", line))
        elif query.strip() in texts:
            malformed.append(refuse_line(file, number, f"query {query.strip()} occurs twice", line))
        else:
            texts[query.strip()] = text.strip()
    require_well_formed(malformed)
    return texts


def read_run(file: Path) -> Run:
    """Return the score of each ranked document by query. Ranks are not used, as in trec_eval.

    Raises:
        InvalidInputError: a line does not have six parts, its score is no number, or a document occurs twice.
    """
    malformed: Malformed = []
    scored: dict[str, dict[str, float]] = {}
    for number, line in read_lines(file, malformed):
        parts = line.split()
        score = _to_number(parts[4]) if len(parts) == 6 else None
        if score is None:
            malformed.append(refuse_line(file, number, "expected QUERY Q0 DOCUMENT RANK SCORE NAME", line))
        elif parts[2] in scored.setdefault(parts[0], {}):
            malformed.append(refuse_line(file, number, f"{parts[2]} occurs twice for {parts[0]}", line))
        else:
            scored[parts[0]][parts[2]] = score
    require_well_formed(malformed)
    return scored


def format_run(run: Run, name: str) -> str:
    """Return a run as the text of its file, best documents first."""
    lines = []
    for query, scores in run.items():
        ordered = sorted(scores, key=lambda document: -scores[document])
        lines += [
            f"{query} Q0 {document} {rank} {scores[document]:.6f} {name}" for rank, document in enumerate(ordered, 1)
        ]
    return "".join(f"{line}\n" for line in lines)


def _name_documents(pictures: Sequence[FolderPicture], positions: np.ndarray, cosines: np.ndarray) -> dict[str, float]:
    return {
        pictures[position].file_name: float(cosine)
        for position, cosine in zip(positions.tolist(), cosines.tolist(), strict=True)
        if position >= 0
    }


def _count_unusable(vectors: Vectors) -> list[str]:
    unusable = int((~np.isfinite(vectors).all(axis=1)).sum())
    return [f"{unusable:,} pictures cannot be decoded, and are never found"] if unusable else []


def _to_number(text: str) -> float | None:
    """Return a finite number; None if the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
