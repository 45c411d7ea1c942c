"""Merchants' edits of captions: kept in the table `caption_edit`, written to a file for `produce captions --learn`."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError, UsageError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.offline import delta, retention
from feature_repo.schema import PRODUCT_ID, TIMESTAMP
from producers.captions.edits import EDIT_COLUMNS

TABLE = "caption_edit"
CAPTION_EDIT = pa.schema(
    [
        (PRODUCT_ID, pa.string()),
        ("caption", pa.string()),  # the line that was offered
        ("edited_caption", pa.string()),  # what the merchant made of it; the same if it was kept
        ("at", TIMESTAMP),  # time of the edit
        ("editor", pa.string()),  # name that the merchant gave; null if none
        ("encoder_version", pa.string()),  # of the checkpoint whose language head wrote the line
    ]
)
"""Table `caption_edit`: lines that merchants edited in the studio. No view reads it, so it is not in schema.py."""
MAX_CAPTION = 500
"""Longest line, in characters."""
MAX_EDITOR = 60
"""Longest name of a merchant, in characters."""
COMPACT_COMMITS = 200
"""Edits after which the small files that they made are merged."""


@dataclass(frozen=True)
class CaptionEdit:
    """A line that was offered for a product, and what a merchant made of it.

    Raises:
        InvalidInputError: a text is empty, too long, or has characters that cannot be printed.
    """

    product_id: str
    caption: str
    edited_caption: str
    editor: str | None
    encoder_version: str

    def __post_init__(self) -> None:
        for name, text, bound in (
            ("product_id", self.product_id, MAX_CAPTION),
            ("caption", self.caption, MAX_CAPTION),
            ("edited_caption", self.edited_caption, MAX_CAPTION),
            ("editor", self.editor if self.editor is not None else "-", MAX_EDITOR),
        ):
            if not text.strip() or len(text) > bound or not text.isprintable():
                raise InvalidInputError(
                    f"{name}: {len(text):,} characters; expected one line of 1 to {bound} printable characters"
                )


@dataclass(frozen=True)
class ExportedEdits:
    """What was written to a file."""

    output: Path
    edits: int
    """Edits that were written."""
    unknown: int
    """Edits of products that the catalogue does not have yet; they are not written, and stay in the table."""

    def __str__(self) -> str:
        text = f"{self.output}: {self.edits:,} edits written"
        return (
            f"{text}; {self.unknown:,} of products that the catalogue does not have left out" if self.unknown else text
        )


class EditLog:
    """The edits of a deployment. Safe to share between threads; other processes may write too.

    Args:
        settings: the deployment.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.table(TABLE)
        self._lock = threading.Lock()
        self._commits = 0

    def append(self, edit: CaptionEdit, now: datetime) -> None:
        """Keep an edit.

        Args:
            edit: the edit.
            now: its time, with a time zone.

        Raises:
            ConflictError: others wrote to the table too often meanwhile; the edit is not kept.
        """
        row = {
            PRODUCT_ID: edit.product_id,
            "caption": edit.caption,
            "edited_caption": edit.edited_caption,
            "at": now,
            "editor": edit.editor,
            "encoder_version": edit.encoder_version,
        }
        with self._lock:
            delta.append(self._path, pa.Table.from_pylist([row], CAPTION_EDIT))
            self._commits += 1
            if self._commits % COMPACT_COMMITS == 0:
                with suppress(ConflictError):  # another process writes; the files are merged another time
                    retention.compact(self._path)

    def read(self, product_id: str | None = None) -> pa.Table:
        """Return the edits, of all products or of one: CAPTION_EDIT, in the order of their times."""
        if not delta.exists(self._path):
            return CAPTION_EDIT.empty_table()
        where = None if product_id is None else pc.field(PRODUCT_ID) == product_id
        return delta.read(self._path, CAPTION_EDIT.names, where=where).sort_by("at")


def export_edits(settings: Settings, output: Path) -> ExportedEdits:
    """Write all edits of products of the catalogue to a file that `learn_labels` reads.

    Args:
        settings: the deployment.
        output: the Parquet file to write; one that exists is replaced.

    Raises:
        UsageError: the name of `output` does not end in .parquet.
        NotFoundError: there is no edit of a product of the catalogue, or no catalogue.
    """
    if output.suffix != ".parquet":
        raise UsageError(f"--export-edits is {output}; expected a name that ends in .parquet")
    edits = EditLog(settings).read()
    known = delta.read(settings.table(schema.CATALOGUE_TABLE), [PRODUCT_ID])[PRODUCT_ID].combine_chunks()
    usable = edits.filter(pc.is_in(edits[PRODUCT_ID], value_set=known))
    if not len(usable):
        raise NotFoundError(
            f"table `caption_edit` has {len(edits):,} edits, and none of a product of the catalogue; edit captions in "
            "`produce studio` first"
        )
    with replace_atomically(output) as unfinished:
        pq.write_table(usable.select([*EDIT_COLUMNS, "editor"]), unfinished)
    return ExportedEdits(output, len(usable), len(edits) - len(usable))
