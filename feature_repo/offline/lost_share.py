"""The share of each input column that was lost: above a limit (`--max-lost-share`) the command ends with an error.

A step uses what it can, and writes and reports what it could not. One row in a thousand is then a matter for the
quarantine. If most of a column is lost, the file is not written as it is read, and the next step must not start.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from feature_repo.arrow.text import quote_text
from feature_repo.errors import InvalidInputError
from feature_repo.offline.quarantine import RejectedRow, count_by_reason


def require_kept(
    file: Path,
    lost: Iterable[RejectedRow],
    rows: int,
    max_lost_share: float,
    *,
    given: Mapping[str, int] = MappingProxyType({}),
    outcome: str = "the rest is used",
) -> None:
    """Require that of no column more than a share of the values was lost. Call it when all that is kept is written.

    Args:
        file: the input, for the message.
        lost: one entry for each value that was dropped and for each row that was refused because of a value. Notes on
            values that were changed but kept are not lost, nor are rows that a newer row replaces.
        rows: rows of the input. A column is compared with this number unless `given` has it.
        max_lost_share: the largest share of a column that may be lost, in [0, 1].
        given: column -> its number of values that were not empty, for columns that may be empty.
        outcome: what happened to the rest, for the message.

    Raises:
        InvalidInputError: more was lost. The message has for each such column the numbers, the most frequent reason and
            a value, and says how to accept the loss.
    """
    by_column: dict[str, list[RejectedRow]] = {}
    for row in lost:
        by_column.setdefault(row.column, []).append(row)
    messages, worst = [], 0.0
    for column, entries in by_column.items():
        total = max(given.get(column, rows), len(entries))
        share = len(entries) / total
        if share > max_lost_share:
            reason = next(iter(count_by_reason(entries)))
            example = next(entry for entry in entries if entry.reason == reason)
            value = "empty" if example.value is None else quote_text(example.value)
            messages.append(
                f"{len(entries):,} of {total:,} values of `{column}` ({share:.0%}; {reason}, such as {value} of "
                f"{example.row_id})"
            )
            worst = max(worst, share)
    if messages:
        accepted = math.ceil(worst * 100) / 100
        raise InvalidInputError(
            f"{file}: lost {' and '.join(messages)}, more than {max_lost_share:.0%}; {outcome}; correct the "
            f"file, or accept the loss with --max-lost-share {accepted:g}"
        )
