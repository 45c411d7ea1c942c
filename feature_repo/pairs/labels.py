"""Pairs of products that people judged, from a CSV with one judgement in each row.

    pair_id,product_id_l,product_id_r,label,labeller,labelled_at,inclusion_probability

`label` is one of PAIR_LABELS; `labelled_at` and `labeller` may be empty. `inclusion_probability` is the probability
with which the pair was drawn for labelling, in (0, 1]; empty counts as 1. Training weighs a pair by its inverse, so
that pairs that were drawn more often do not count more.
"""

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.durations import EARLIEST, LATEST
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.csv_export import restore_text
from feature_repo.schema import TIMESTAMP

PAIR_LABELS = ("same", "similar", "different", "unsure")

MIN_PROBABILITY = 1e-9
"""Least inclusion probability: what is drawn more rarely would outweigh all other pairs, or overflow."""

PAIR_JUDGEMENTS = pa.schema(
    [
        ("pair_id", pa.string()),
        ("product_id_l", pa.string()),
        ("product_id_r", pa.string()),
        ("label", pa.string()),  # of PAIR_LABELS
        ("labeller", pa.string()),
        ("labelled_at", TIMESTAMP),  # null if not stated
        ("inclusion_probability", pa.float64()),
    ]
)


@dataclass(frozen=True)
class LabelledPairs:
    """m judged pairs of a catalogue, each once."""

    left: NDArray[np.int64]
    """[m], rows of the products."""
    right: NDArray[np.int64]
    """[m], likewise."""
    is_same: NDArray[np.bool_]
    """[m]; false for the label `similar`."""
    weight: NDArray[np.float64]
    """[m], 1 / inclusion probability, scaled to a mean of 1."""


def read_judgements(file: Path) -> pa.Table:
    """Return the judged rows of a CSV in UTF-8 as schema PAIR_JUDGEMENTS, in the order of the file.

    Rows without a label are not judged yet and are left out.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: the file is not CSV in UTF-8; a column is missing; or a row has more fields than the header,
            an unknown label, an empty id, twice the same id, a probability that is not in (0, 1], or a time that cannot
            be read, has no time zone or is not in the years 1970 to 2999. The message names the line.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file; expected a CSV of judged pairs")
    required = {"product_id_l", "product_id_r", "label"}
    with file.open(encoding="utf-8-sig", newline="") as stream, explain_unreadable(file):
        reader = csv.DictReader(stream, strict=True)
        if missing := sorted(required - set(reader.fieldnames or ())):
            raise InvalidInputError(
                f"{file}: no column {', '.join(missing)}; expected {','.join(PAIR_JUDGEMENTS.names)}"
            )
        rows = [_parse_row(row, f"{file} line {reader.line_num}") for row in reader if (row.get("label") or "").strip()]
    return pa.Table.from_pylist(rows, schema=PAIR_JUDGEMENTS)


@contextmanager
def explain_unreadable(file: Path) -> Iterator[None]:
    """Raise InvalidInputError, which names the file, if reading it as UTF-8 or as CSV fails."""
    try:
        yield
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{file}: not a CSV in UTF-8 ({error}); save it as one") from None


def check_judgement(row: Mapping[str, Any], place: str) -> None:
    """Raise InvalidInputError if a parsed row of PAIR_JUDGEMENTS is no pair, or its probability or time is impossible.

    Args:
        row: `product_id_l`, `product_id_r`, `inclusion_probability`, and `labelled_at`, None or with a time zone.
        place: where the row is, for the message.
    """
    left, right, probability = row["product_id_l"], row["product_id_r"], row["inclusion_probability"]
    if not left or not right or left == right:
        raise InvalidInputError(
            f"{place}: {left or 'no id'} and {right or 'no id'} are not two different products; correct the ids"
        )
    if not MIN_PROBABILITY <= probability <= 1:
        raise InvalidInputError(
            f"{place}: inclusion_probability is {probability}; expected a number in (0, 1], at least {MIN_PROBABILITY}"
        )
    if row["labelled_at"] is not None and not EARLIEST <= row["labelled_at"] < LATEST:
        raise InvalidInputError(f"{place}: labelled_at is {row['labelled_at']}; expected a time in 1970 to 2999")


def select_pairs(judgements: pa.Table, product_ids: pa.Array) -> LabelledPairs:
    """Return the judged pairs as rows of a catalogue; `unsure` pairs are left out.

    If a pair has several judgements under several `pair_id`, the majority counts; a tie is left out.

    Args:
        judgements: of PAIR_JUDGEMENTS.
        product_ids: [n], the ids of the catalogue, each once.

    Raises:
        InvalidInputError: an id is not in the catalogue, or one pair_id has two different answers.
    """
    index = {product_id: row for row, product_id in enumerate(product_ids.to_pylist())}
    by_number: dict[str, bool] = {}
    votes: dict[tuple[int, int], list[tuple[bool, float]]] = {}
    for row in judgements.to_pylist():
        for side in ("product_id_l", "product_id_r"):
            if row[side] not in index:
                raise InvalidInputError(
                    f"pair {row['pair_id']}: {side} {row[side]} is not in the catalogue; "
                    "remove the row, or run `produce catalogue` first"
                )
        if row["label"] == "unsure":
            continue
        same = row["label"] == "same"
        if by_number.setdefault(row["pair_id"], same) != same:
            raise InvalidInputError(
                f"pair {row['pair_id']} of {row['product_id_l']} and {row['product_id_r']} has two answers; "
                "keep one row of it"
            )
        left, right = sorted((index[row["product_id_l"]], index[row["product_id_r"]]))
        votes.setdefault((left, right), []).append((same, row["inclusion_probability"]))
    answers = {
        pair: (2 * sum(same for same, _ in given) > len(given), max(probability for _, probability in given))
        for pair, given in votes.items()
        if 2 * sum(same for same, _ in given) != len(given)
    }
    pairs = np.array(list(answers), np.int64).reshape(-1, 2)
    weight = 1 / np.array([probability for _, probability in answers.values()])
    is_same = np.array([same for same, _ in answers.values()], bool)
    return LabelledPairs(
        pairs[:, 0], pairs[:, 1], is_same, weight / max(weight.mean(), 1e-9) if len(weight) else weight
    )


def _parse_row(row: dict[str, str | None], place: str) -> dict[str, object]:
    """Return a row of the CSV with parsed values."""
    values = {name: (row.get(name) or "").strip() for name in PAIR_JUDGEMENTS.names}
    values |= {name: restore_text(values[name]) for name in ("product_id_l", "product_id_r")}
    if None in row:  # where csv puts what is beyond the header
        raise InvalidInputError(f"{place}: more fields than the header has; quote fields that have commas")
    if values["label"] not in PAIR_LABELS:
        raise InvalidInputError(f"{place}: label is {values['label']!r}; use one of {', '.join(PAIR_LABELS)}")
    try:
        probability = float(values["inclusion_probability"] or 1)
        labelled_at = datetime.fromisoformat(values["labelled_at"]) if values["labelled_at"] else None
    except ValueError:
        raise InvalidInputError(
            f"{place}: inclusion_probability or labelled_at cannot be read; expected a number in (0, 1] and a time "
            "such as 2026-03-01T12:00:00Z"
        ) from None
    if labelled_at is not None and labelled_at.tzinfo is None:
        raise InvalidInputError(f"{place}: labelled_at has no time zone; write 2026-03-01T12:00:00Z")
    parsed: dict[str, object] = {**values, "labelled_at": labelled_at, "inclusion_probability": probability}
    check_judgement(parsed, place)
    pair = sorted((values["product_id_l"], values["product_id_r"]))
    return parsed | {"pair_id": values["pair_id"] or "-".join(pair)}
