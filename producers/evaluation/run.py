"""The result of one evaluation as JSON, and the results of many as a table."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.json_text import parse_json
from producers.evaluation.measures import Measure


@dataclass(frozen=True)
class EvaluationRun:
    """One evaluation. Field names are keys of the JSON."""

    dataset: str
    """What was measured on, such as `muge valid`."""
    source: str
    """Folder or file of the data."""
    subject: str
    """What was measured: an encoder version, or a file of predictions."""
    created: datetime
    """When, with a time zone."""
    queries: int
    """Queries, or captions, that count."""
    documents: int
    """Pictures that are searched, or described."""
    measures: Mapping[str, Measure]
    """By name, in the order in which they are shown."""
    notes: Sequence[str] = field(default=())
    """What was left out, in one line each."""

    def to_json(self) -> str:
        """Return the run as the text of its file."""
        return json.dumps(asdict(self) | {"created": self.created.isoformat()}, indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        lines = [f"{self.dataset}, {self.subject}: {self.queries:,} queries, {self.documents:,} pictures"]
        lines += [f"  {name:<12} {format_measure(measure)}" for name, measure in self.measures.items()]
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def format_measure(measure: Measure) -> str:
    """Return a value with its interval, if it has one that is wider than the value."""
    if measure.low == measure.high:
        return f"{measure.value:.4f}"
    return f"{measure.value:.4f} [{measure.low:.4f}, {measure.high:.4f}]"


def read_runs(folder: Path) -> list[EvaluationRun]:
    """Return the runs whose JSON is in a folder, by data set, subject and time. Other JSON files are an error.

    Raises:
        NotFoundError: there is no such folder, or no JSON file in it.
        InvalidInputError: a file is not the JSON of a run.
    """
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise NotFoundError(f"{folder}: no JSON file; write some with produce evaluate --json {folder}/NAME.json")
    return sorted(map(_read_run, files), key=lambda run: (run.dataset, run.subject, run.created))


def build_tables(runs: Sequence[EvaluationRun]) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Return header and rows of a table for each data set: one row a run, one column a measure that any of them has.

    Intervals are left out; the CSV has them.
    """
    tables = {}
    for dataset in dict.fromkeys(run.dataset for run in runs):
        chosen = [run for run in runs if run.dataset == dataset]
        names = list(dict.fromkeys(name for run in chosen for name in run.measures))
        rows = [
            [
                run.subject,
                f"{run.created:%Y-%m-%d}",
                f"{run.queries:,}",
                *(f"{run.measures[name].value:.3f}" if name in run.measures else "" for name in names),
            ]
            for run in chosen
        ]
        tables[dataset] = (["subject", "created", "queries", *names], rows)
    return tables


def format_csv(runs: Sequence[EvaluationRun]) -> str:
    """Return the table of runs as CSV, with values and bounds in columns of their own."""
    names = list(dict.fromkeys(name for run in runs for name in run.measures))
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    bounds = [f"{name}{part}" for name in names for part in ("", " low", " high")]
    writer.writerow(["data", "source", "subject", "created", "queries", "documents", *bounds])
    for run in runs:
        values: list[object] = []
        for name in names:
            measure = run.measures.get(name)
            values += ["", "", ""] if measure is None else [measure.value, measure.low, measure.high]
        writer.writerow(
            [run.dataset, run.source, run.subject, run.created.isoformat(), run.queries, run.documents, *values]
        )
    return output.getvalue()


def _read_run(file: Path) -> EvaluationRun:
    try:
        content = parse_json(file.read_text())
        content["created"] = datetime.fromisoformat(content["created"])
        content["measures"] = {name: Measure(**values) for name, values in content["measures"].items()}
        run = EvaluationRun(**content)
        for measure in run.measures.values():
            format_measure(measure)
        return run
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{file}: not the JSON of produce evaluate ({error}); move it elsewhere") from error
