"""What ingesting a products table did, in counts and in lines."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from feature_repo.arrow import text
from feature_repo.arrow.text import NormalizedValues
from feature_repo.offline import quarantine
from feature_repo.offline.quarantine import RejectedRow
from producers.catalogue import validate
from producers.catalogue.repeated_ids import DUPLICATE_ID, SAME_LOOKING_ID

MAX_GONE_SHARE = 0.5
"""If a larger share of the active products is missing, and MIN_GONE of them, the table is refused as incomplete. If
fewer are missing, or shrinking is allowed, the summary warns."""
MIN_GONE = 10
DOWNLOAD_FIRST = "`produce images --download` downloads it, and writes a table to give to this command instead"
MAX_EXAMPLE = 60
"""Characters of a value that are shown as an example."""


@dataclass(frozen=True)
class IngestSummary:
    """The outcome for one table; `new + changed + unchanged + len(refused)` is `read`.

    A dry run has the numbers that the run would have had.
    """

    read: int
    """Rows of the table."""
    new: int
    """Products without a stored version."""
    changed: int
    """Products that differ from the stored version that is valid at their `updated_at`, or have only later ones."""
    unchanged: int
    """Products that equal the stored version that is valid at their `updated_at`. Nothing is written for them."""
    gone: int
    """Products that were active and are not in the table; 0 for a partial table. A refused row counts as present; of
    a line of a CSV that does not fit the header, any field may be its id."""
    active: int
    """Stored products that were active before."""
    returned: int
    """Products that were gone and are in the table again. Each also counts as changed, unchanged or refused."""
    refused: tuple[RejectedRow, ...]
    """Rows that were not used, among them the older rows of a product id that is repeated in the table."""
    repairs: tuple[RejectedRow, ...]
    """Repaired and dropped values (validate.KEPT_VALUE has the reasons of the former); their rows count as new, changed
    or unchanged."""
    normalized: tuple[NormalizedValues, ...]
    """For each column with values that were normalized, how many."""
    currencies: dict[str, int]
    """Currency -> prices that had it beside the number, the most frequent first."""
    given: dict[str, int]
    """`price` and `image` -> values of the table that are not null."""
    ignored: tuple[str, ...]
    """Names of columns of the table that were not read, in the table's order. They are not stored."""

    def __str__(self) -> str:
        """Return one line of counts, and one more for each kind of change, reason, normalized, URLs, ignored column."""
        lines = [
            f"read {self.read:,} products: {self.new:,} new, {self.changed:,} changed, {self.unchanged:,} unchanged, "
            f"{len(self.refused):,} refused"
        ]
        if self.gone:
            lines.append(f"  gone {self.gone:,}: active before, and not in this table")
        if self.gone > MAX_GONE_SHARE * self.active:
            lines.append(
                f"  warning: {self.gone:,} of {self.active:,} active products are gone; if this table is only "
            )
            lines[-1] += "a part of the catalogue, ingest the whole one, and give --partial for parts"
        lines += [f"  returned {self.returned:,}: gone before, and in this table again"] * bool(self.returned)
        repaired = [row for row in self.repairs if row.reason in validate.KEPT_VALUE]
        dropped = [row for row in self.repairs if row.reason not in validate.KEPT_VALUE]
        for verb, rows in (("refused", self.refused), ("repaired", repaired), ("dropped", dropped)):
            lines += _describe_reasons(verb, rows)
        lines += [f"  {values}" for values in self.normalized]
        if self.currencies:
            counts = ", ".join(f"{currency} {rows:,}" for currency, rows in self.currencies.items())
            lines.append(f"  currencies: {counts}" + "; prices are not converted" * (len(self.currencies) > 1))
        urls = sum(row.column == "image" and "://" in (row.value or "") for row in (*self.refused, *self.repairs))
        lines += [f"  {urls:,} products have the URL of an image: {DOWNLOAD_FIRST}"] * bool(urls)
        lines += [f"  ignored column {name}" for name in self.ignored]
        return "\n".join(lines)

    def list_lost(self) -> list[RejectedRow]:
        """Return the values that were dropped and the rows that were refused because of a value, for `require_kept`."""
        # A row without a title and an image has lost no image: it counts among all rows, as `title`.
        refused = [
            replace(row, column="title") if row.reason == validate.NO_CONTENT and row.value is None else row
            for row in self.refused
            if row.reason != DUPLICATE_ID
        ]
        return refused + [repair for repair in self.repairs if repair.reason not in validate.KEPT_VALUE]


def _describe_reasons(verb: str, rows: Sequence[RejectedRow]) -> list[str]:
    """Return a line for each reason, with the first of its rows as an example."""
    lines = []
    for reason, count in quarantine.count_by_reason(rows).items():
        example = next(row for row in rows if row.reason == reason)
        value = (example.value or "")[:MAX_EXAMPLE]
        quoted = value if reason == SAME_LOOKING_ID else text.quote_text(value)  # its spellings are in quotes already
        lines.append(f"  {verb} {count:,}: {reason}, such as {quoted + ' of ' if value else ''}{example.row_id}")
    return lines
