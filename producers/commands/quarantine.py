"""`produce quarantine`."""

from pathlib import Path
from typing import Annotated

import typer

from feature_repo import config
from feature_repo.console import StoreOption

MAX_VALUE = 60
"""Characters of a value that are printed; the CSV has up to 200."""


def quarantine(
    step: Annotated[str | None, typer.Option(help="Only what `produce STEP` refused, dropped or repaired.")] = None,
    last: Annotated[int, typer.Option(min=0, help="List this many of the latest rows.")] = 20,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="Write all of these rows to this CSV.")] = None,
    store: StoreOption = None,
) -> None:
    """List what the steps refused, dropped or repaired: rows by step, column and reason, then the latest rows.

    In the CSV, a text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    from feature_repo.arrow.text import quote_text
    from feature_repo.files.csv_export import write_csv
    from feature_repo.offline import quarantine as table

    rows = table.read(config.load(store))
    counts = table.count_by_cause(rows, step)
    rows = table.select_latest(rows, step)
    for (row_step, column, reason), count in counts.items():
        typer.echo(f"{count:,}  {row_step}, {column}: {reason}")
    for row in rows.slice(0, last).to_pylist():
        value = "" if row["value"] is None else f" {quote_text(row['value'][:MAX_VALUE])}"
        named = quote_text(row["row_id"])[1:-1]
        time = row["created_timestamp"].isoformat(timespec="seconds")
        typer.echo(f"{time}  {row['step']}  {named}  {row['column']}{value}: {row['reason']}")
    if not len(rows):
        typer.echo("nothing is in quarantine" if step is None else f"nothing of step {step} is in quarantine")
    elif len(rows) > last:
        typer.echo(f"... and {len(rows) - last:,} earlier rows; --last N lists more, --output FILE.csv writes all")
    if output is not None:
        write_csv(rows, output)
        typer.echo(f"wrote {len(rows):,} rows to {output}")
