"""What a machine without the store is to encode, and what came back: Parquet out, Parquet parts in."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import images, schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, quarantine
from producers.catalogue import row_hash
from producers.embeddings import existing_rows
from producers.embeddings.existing_rows import KEY, STEP, Mask, txn_app_id
from producers.encoders import shards as parts
from producers.encoders.pipeline import HASH_COLUMNS

ROWS_AT_ONCE = 4096
FEW_ROWS = 16_384
"""Above it, asking a table for these very products is the larger question than for all of their time."""


@dataclass(frozen=True)
class CommitSummary:
    """What came of a folder of parts."""

    run: parts.RunDescription
    parts: int
    """Whole ones."""
    added: int
    known: int
    """Rows whose product, time and contents had a row of this encoder, and no later one of another."""
    outdated: int
    """Rows of contents that the catalogue has corrected since they were handed out: not added."""
    unusable: dict[str, int]

    def __str__(self) -> str:
        lines = [
            f"{self.run.encoder_version}: {self.added:,} rows added, {self.known:,} known already, "
            f"{self.parts:,} of {self.run.parts:,} parts were whole"
        ]
        if self.outdated:
            lines.append(f"  {self.outdated:,} rows left out: corrected since in the catalogue; hand those out again")
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def export_todo(
    settings: Settings, out: Path, *, encoder_version: str | None, has_images: bool = True
) -> tuple[int, int]:
    """Write what is to be encoded as Parquet, files of pictures read into it; of corrected versions the last created.

    Args:
        settings: the deployment.
        out: the file; it takes its name when it is whole.
        encoder_version: what has a row of it, made of the same contents and not overtaken by another encoder's, is left
            out; all is written if not given.
        has_images: whether that encoder has an image tower; without one a row does not depend on the picture.

    Returns:
        Rows written, and those of them whose picture could not be read: the path stays, and the machine that encodes
        names it as unusable.

    Raises:
        VitrineError: there is no catalogue.
    """
    columns = [*KEY, "title", "image", "image_bytes", "image_hash"]
    catalogue = delta.read(settings.table(schema.CATALOGUE_TABLE), [*columns, schema.CREATED_TIMESTAMP])
    last = np.zeros(len(catalogue), bool)
    last[existing_rows.find_latest(catalogue)] = True
    catalogue = catalogue.select(columns).filter(pa.array(last))
    catalogue = catalogue.append_column("title_hash", row_hash.hash_contents(catalogue["title"]))
    if encoder_version is not None:
        asked = catalogue.select([*KEY, *HASH_COLUMNS])
        if not has_images:
            place = asked.schema.get_field_index("image_hash")
            asked = asked.set_column(place, "image_hash", pa.nulls(len(asked), row_hash.HASH_TYPE))
        _, done = existing_rows.find_existing(settings, asked, encoder_version, few=len(asked) <= FEW_ROWS)
        catalogue = catalogue.filter(pa.array(~done))
    unread, beside = 0, out.with_name(f".{out.name}.writing")
    with pq.ParquetWriter(beside, catalogue.schema, compression="zstd") as file:
        for start in range(0, max(len(catalogue), 1), ROWS_AT_ONCE):
            rows = catalogue.slice(start, ROWS_AT_ONCE)
            contents = rows["image_bytes"].to_pylist()
            for row, path in enumerate(rows["image"].to_pylist()):
                if contents[row] is None and path is not None:
                    try:
                        contents[row] = images.read_bytes(Path(path))
                    except images.UnusableImageError:
                        unread += 1
            place = rows.schema.get_field_index("image_bytes")
            file.write_table(rows.set_column(place, rows.schema.field(place), pa.array(contents, pa.binary())))
    os.replace(beside, out)
    return len(catalogue), unread


def commit_parts(settings: Settings, folder: Path, now: datetime) -> CommitSummary:
    """Add the rows of a folder's whole parts to `product_embedding`, each part in one commit; known ones are not added.

    Args:
        settings: the deployment.
        folder: of `python -m producers.encoders.run`.
        now: when; the created timestamp of what is added, which is so the last created, and of the quarantine.

    Raises:
        VitrineError: the folder holds no parts, or one that is damaged or of another encoder; or others were quicker
            to commit again and again.
    """
    run = parts.read_description(folder)
    count = added = known = outdated = 0
    refused: list[quarantine.RejectedRow] = []
    for part in parts.read_shards(folder):
        these = [quarantine.RejectedRow(u.product_id, u.column, u.reason, u.value) for u in part.unusable]
        quarantine.add(settings, STEP, these, now)
        refused += these
        is_outdated = _outdated(settings, part.rows)
        asked = part.rows.filter(pa.array(~is_outdated))
        new = _add_unknown(settings, asked, run.encoder_version, now)
        count, added, known = count + 1, added + new, known + len(asked) - new
        outdated += int(is_outdated.sum())
    if run.parts and not count:
        raise VitrineError(f"{folder}: none of its {run.parts:,} parts is whole; run the encoding to its end")
    return CommitSummary(run, count, added, known, outdated, quarantine.count_by_reason(refused))


def _add_unknown(settings: Settings, rows: pa.Table, encoder_version: str, now: datetime) -> int:
    """Add the rows that the table has not, in one commit in turn with all others of this encoder; how many they are."""
    path, name = settings.table(schema.EMBEDDING_TABLE), txn_app_id(encoder_version)
    created = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(rows))
    place = rows.schema.get_field_index(schema.CREATED_TIMESTAMP)
    rows = rows.set_column(place, rows.schema.field(place), created)
    for _ in range(delta.ATTEMPTS):
        turn = delta.txn_version(path, name)
        there, same = existing_rows.find_existing(settings, rows, encoder_version, few=len(rows) <= FEW_ROWS)
        unsaid = (existing_rows.hash_contents(rows) == existing_rows.NO_CONTENT).all(axis=1)
        new = rows.filter(pa.array(~(same | (there & unsaid))))
        if not len(new):
            return 0
        try:
            delta.append_if_version(path, new, name, turn)
        except delta.CommitConflict:  # some of these may be among the rows that another has just added: ask again
            continue
        return len(new)
    raise VitrineError(f"table `{schema.EMBEDDING_TABLE}`: others were quicker {delta.ATTEMPTS} times; run this again")


def _outdated(settings: Settings, rows: pa.Table) -> Mask:
    """Which rows were made of contents that the catalogue no longer has for their product and time: bool [rows].

    Added after the row of the correction they would be taken for the newer ones. What a row does not say of itself
    is not held against it.
    """
    path = settings.table(schema.CATALOGUE_TABLE)
    if not delta.exists(path) or not len(rows):
        return np.zeros(len(rows), bool)
    columns = [*KEY, schema.CREATED_TIMESTAMP, "title", "image_hash"]
    listed = delta.read(path, columns, where=existing_rows.build_filter(rows, len(rows) <= FEW_ROWS))
    listed = listed.append_column("title_hash", row_hash.hash_contents(listed["title"]))
    last = existing_rows.find_latest(listed)
    place = row_hash.find_positions(existing_rows.hash_keys(rows), existing_rows.hash_keys(listed)[last])
    found, result = np.flatnonzero(place >= 0), np.zeros(len(rows), bool)
    for name in HASH_COLUMNS:
        mine, theirs = (row_hash.from_arrow(each[name]) for each in (rows, listed))
        mine, theirs = mine[found], theirs[last[place[found]]]
        result[found] |= mine.any(axis=1) & (mine != theirs).any(axis=1)
    return result
