"""Samples and judgements as CSV and as Label Studio's JSON.

The CSV has the columns of `feature_repo.pairs.labels` first, so `produce groups --pairs` reads it, then what the sample
knows of each pair, and titles and images to look at. A task of Label Studio holds the same fields as `data`; its
`annotations` are read back from an export in JSON. The labelling interface asks by `Choices`, whose values are same,
similar, different and unsure.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from consumers.labels.frame import SamplingFrame
from consumers.labels.sample import make_pair_id, make_repeat_id
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.files.csv_export import restore_text, write_csv
from feature_repo.files.json_text import parse_json
from feature_repo.pairs.labels import PAIR_JUDGEMENTS, PAIR_LABELS, check_judgement
from feature_repo.schema import CREATED_TIMESTAMP, PAIR_LABEL

HIDDEN = ("is_repeat", CREATED_TIMESTAMP)
"""Columns that the files lack: a labeller must not know which pairs are repeats. The import finds it by `pair_id`."""


def write_sample(sample: pa.Table, frame: SamplingFrame, file: Path) -> None:
    """Write a sample as CSV, or as tasks of Label Studio if the file's name ends in .json.

    Args:
        sample: of schema.PAIR_LABEL.
        frame: the frame from which it was drawn.
        file: the file; an earlier one is replaced once all rows are written.
    """
    row = {name: number for number, name in enumerate(frame.product_ids)}
    table = sample.drop_columns(list(HIDDEN))
    for side in ("l", "r"):
        rows = [row[name] for name in sample[f"product_id_{side}"].to_pylist()]
        table = table.append_column(f"title_{side}", pa.array([frame.title[one] for one in rows], pa.string()))
        table = table.append_column(f"image_{side}", pa.array([frame.image[one] for one in rows], pa.string()))
    if file.suffix != ".json":
        write_csv(table, file)
        return
    tasks = [{"data": {name: value for name, value in task.items() if value is not None}} for task in table.to_pylist()]
    with replace_atomically(file) as unfinished:
        unfinished.write_text(json.dumps(tasks, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_judged(file: Path) -> pa.Table:
    """Return the judged rows of a sample as schema.PAIR_LABEL; rows without a label are left out.

    Args:
        file: CSV, or an export of Label Studio in JSON.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it cannot be read; a column or a value of the sample is missing; no row has a label; a label
            is unknown; a rank, a probability or a time is impossible; or one pair_id has two answers.
    """
    if not file.is_file():
        raise NotFoundError(f"{file}: no such file; expected judged pairs, as `consume labels sample` writes them")
    rows = _read_tasks(file) if file.suffix == ".json" else _read_csv(file)
    parsed = [_parse(row, f"{file} row {number}") for number, row in enumerate(rows, start=1)]
    judged = [row for row in parsed if row["label"]]
    if not judged:
        raise InvalidInputError(f"{file}: none of {len(rows):,} rows has a label; judge pairs before the import")
    answers: dict[str, str] = {}
    for row in judged:
        label = answers.setdefault(row["pair_id"], row["label"])
        if label != row["label"]:
            raise InvalidInputError(
                f"{file}: pair {row['pair_id']} has two answers, {label} and {row['label']}; keep one row of it"
            )
    return pa.Table.from_pylist(judged, schema=PAIR_LABEL)


def _read_csv(file: Path) -> list[dict[str, Any]]:
    options = pyarrow.csv.ConvertOptions(
        column_types={name: pa.string() for name in PAIR_LABEL.names}, strings_can_be_null=True, null_values=[""]
    )
    try:
        table = pyarrow.csv.read_csv(file, convert_options=options)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(f"{file}: not a readable CSV ({' '.join(str(error).split())})") from None
    required = (*PAIR_JUDGEMENTS.names, "week", "category", "rank", "in_one_group")
    if missing := [name for name in required if name not in table.column_names]:
        raise InvalidInputError(
            f"{file}: no column {', '.join(missing)}; judge the file that "
            "`consume labels sample` wrote, and keep its columns"
        )
    escaped = ("product_id_l", "product_id_r", "week", "category")
    return [row | {name: restore_text(row[name] or "") for name in escaped} for row in table.to_pylist()]


def _read_tasks(file: Path) -> list[dict[str, Any]]:
    """Return a row for each annotation of each task, and one without a label for a task without any."""
    try:
        tasks = parse_json(file.read_text(encoding="utf-8"))
        return [
            {
                **{name: str(value) for name, value in task["data"].items() if value is not None},
                "label": _read_choice(annotation),
                "labeller": _read_labeller(annotation),
                "labelled_at": annotation.get("created_at"),
            }
            for task in tasks
            for annotation in [one for one in task.get("annotations", []) if not one.get("was_cancelled")] or [{}]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{file}: not Label Studio's JSON of tasks with `data` and `annotations` ({type(error).__name__}: {error})"
        ) from None


def _read_labeller(annotation: dict[str, Any]) -> str | None:
    """Return who judged: the id that Label Studio exports, or the e-mail address where it exports the whole person."""
    who = annotation.get("completed_by", "")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id", "")
    return str(who) or None


def _read_choice(annotation: dict[str, Any]) -> str | None:
    choices = [choice for result in annotation.get("result", []) for choice in result["value"].get("choices", [])]
    return choices[0] if choices else None


def _parse(row: dict[str, Any], place: str) -> dict[str, Any]:
    """Return a row with parsed values."""
    values: dict[str, Any] = {name: row.get(name) for name in PAIR_LABEL.names if name not in HIDDEN}
    if values["label"] and values["label"] not in PAIR_LABELS:
        raise InvalidInputError(f"{place}: label is {values['label']!r}; use one of {', '.join(PAIR_LABELS)}")
    try:
        probability = float(values["inclusion_probability"] or "")
        values |= {"inclusion_probability": probability, "rank": int(values["rank"] or "")}
        values["probability"] = float(values["probability"]) if values["probability"] else None
        values["in_one_group"] = {"true": True, "false": False}[str(values["in_one_group"]).lower()]
        values["labelled_at"] = datetime.fromisoformat(values["labelled_at"]) if values["labelled_at"] else None
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise InvalidInputError(
            f"{place}: a number or a time cannot be read ({error}); keep the sample's columns"
        ) from None
    if missing := [name for name in ("pair_id", "week", "category") if not values[name]]:
        raise InvalidInputError(f"{place}: no {', '.join(missing)}; keep the sample's columns as they were")
    if values["labelled_at"] is not None and values["labelled_at"].tzinfo is None:
        raise InvalidInputError(f"{place}: labelled_at has no time zone; write 2026-03-01T12:00:00Z")
    if not 1 <= values["rank"] < 2**31:
        raise InvalidInputError(f"{place}: rank is {values['rank']}; expected the sample's, from 1")
    check_judgement(values, place)
    first = make_pair_id(values["week"], values["product_id_r"], values["product_id_l"])
    return values | {"is_repeat": values["pair_id"] == make_repeat_id(first)}
