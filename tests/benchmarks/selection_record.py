"""Keeps the figures of `consume search-report` by data set, and writes them to SELECTION.md."""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks import harness

RECORD = Path(__file__).parent / "selection.json"
TABLE = Path(__file__).parent / "SELECTION.md"
KINDS = ("usual colour", "usual pattern", "usual emblem", "any colour", "any pattern", "any emblem", "two", "three")


def record_reports(reports: dict[str, dict[str, Any]], command: str) -> None:
    """Replace the figures of some sets and write the table."""
    kept = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    made = harness.describe_machine()
    kept |= {name: {"command": command, "made": made, "report": report} for name, report in reports.items()}
    RECORD.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
    TABLE.write_text(_render(kept))


def _render(kept: dict[str, Any]) -> str:
    lines = [
        "# Selection by a sentence",
        "",
        "Written by the commands named, never by hand. AP@50 is the mean average precision of the first 50 places,",
        "[..] its 95% bootstrap interval over queries. `BM25, tuned` has the k1 and b that are best for these queries;",
        "`keywords`, `words`, `image` and `text` are the parts alone, `sum` has the default weights, and the weights",
        "and cut-offs of `sum, calibrated` are fitted on the other half of the queries.",
        "",
        "| titles or set | ranked by | AP@50 | over tuned BM25 | " + " | ".join(KINDS) + " | command |",
        "| --- | --- | --- | --- |" + " --- |" * (len(KINDS) + 1),
    ]
    for name, one in kept.items():
        for row in one["report"]["rows"]:
            kinds = " | ".join(f"{row['by_kind'][kind]:.3f}" if kind in row["by_kind"] else "" for kind in KINDS)
            gain = "" if row["name"] == "BM25, tuned" else f"{row['over_baseline']:+.3f} {_interval(row, '+')}"
            lines.append(
                f"| {name} | {row['name']} | {row['mean']:.3f} {_interval(row, '')} | {gain} | {kinds} "
                f"| `{one['command']}` |"
            )
    lines += ["", "At the cut-off for a precision of 0.8, products of all queries together:", ""]
    lines += ["| titles or set | category | returned | precision | recall |", "| --- | --- | --- | --- | --- |"]
    for name, one in kept.items():
        for cut in one["report"]["cutoffs"]:
            precision = "" if cut["precision"] is None else f"{cut['precision']:.2f}"
            recall = "" if cut["recall"] is None else f"{cut['recall']:.2f}"
            lines.append(f"| {name} | {cut['category']} | {cut['returned']:,} | {precision} | {recall} |")
    lines += ["", "| titles or set | queries | commit, date, machine |", "| --- | --- | --- |"]
    for name, one in kept.items():
        queries, made = sum(one["report"]["queries"].values()), one["made"]
        lines.append(f"| {name} | {queries} | {made['commit']}, {made['date']}, {made['machine']} |")
    return "\n".join(lines) + "\n"


def _interval(row: dict[str, Any], sign: str) -> str:
    low, high = row["over_baseline_interval" if sign else "interval"]
    return f"[{low:{sign}.3f}, {high:{sign}.3f}]"
