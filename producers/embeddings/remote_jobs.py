"""Encode on a machine without the store: export what has to be encoded as Parquet, commit the parts that come back."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, NotFoundError
from feature_repo.files.atomic_write import replace_atomically
from feature_repo.images import decoding
from feature_repo.images.decoding import UnusableImageError
from feature_repo.images.read_ahead import read_ahead
from feature_repo.offline import delta, encoder_licence, production, quarantine, training_products
from producers.catalogue import row_hash
from producers.embeddings import existing_rows
from producers.embeddings.existing_rows import KEY, STEP, Mask, txn_app_id
from producers.encoders import shards
from producers.encoders.checkpoint_version import read_training_products
from producers.encoders.licence import read_licence
from producers.encoders.pipeline import HASH_COLUMNS

MAX_FEW_ROWS = 16_384
"""For more rows it is faster to read a table's whole time range than to filter by product."""


@dataclass(frozen=True)
class CommitSummary:
    """What one call of `commit_parts` did.

    `added`, `existing`, `outdated` and the products without any vector sum to the products of the complete parts;
    together with `missing` they are all that were handed out.
    """

    run: shards.RunDescription
    """What run.json of the folder says."""
    parts: int
    """Number of complete parts; all were committed; `run.parts` is the number of a finished run."""
    added: int
    """Rows added to `product_embedding`."""
    existing: int
    """Rows left out because the table's latest row of the same product and time is of this encoder and has the same
    contents. Contents are not compared if either row has no hashes."""
    outdated: int
    """Rows left out because the catalogue has corrected their contents since they were exported."""
    missing: int
    """Products that were handed out and are in no complete part; 0 after a finished run."""
    unusable: dict[str, int]
    """Number of images, titles and products without a vector by reason, the most frequent first. Those that an earlier
    commit of the folder has quarantined are counted again."""

    def __str__(self) -> str:
        lines = [
            f"{self.run.encoder_version}: {self.added:,} rows added, {self.existing:,} existed already, "
            f"{self.parts:,} of {self.run.parts:,} parts were complete"
        ]
        if self.outdated:
            lines.append(
                f"  {self.outdated:,} rows left out: corrected in the catalogue since; export them again with "
                "`produce hand-out`"
            )
        if self.missing:
            lines.append(
                f"  {self.missing:,} of {self.run.rows:,} products are missing: their parts are not complete; run the "
                "encoding to its end and commit again"
            )
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def export_todo(
    settings: Settings, out: Path, *, encoder_version: str | None, has_images: bool = True
) -> tuple[int, int]:
    """Write the catalogue rows that have to be encoded to a Parquet file, with the bytes of their images.

    Of several rows of one product and event time, only the one created last is written. The rows are in the order of
    the catalogue; if nothing has to be encoded, there are none. The columns are product_id, event_timestamp, title,
    image, image_bytes, image_hash and title_hash.

    Args:
        settings: the deployment.
        out: the file; an existing one is replaced, missing folders are created. It is written under a temporary name
            and renamed when it is complete.
        encoder_version: `name@fingerprint`; leave out rows for which the last created row of `product_embedding` is of
            this encoder and has the same contents. None leaves out none.
        has_images: whether that encoder has an image tower. If not, a change of the image does not count.

    Returns:
        The number of rows written, and how many of them have an image that cannot be read. Those keep its path, and the
        machine that encodes reports it as unusable.

    Raises:
        NotFoundError: there is no catalogue.
    """
    columns = [*KEY, "title", "image", "image_bytes", "image_hash"]
    dataset = delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))
    # First without the images, which are read one batch at a time.
    catalogue = dataset.to_table(columns=[*KEY, schema.CREATED_TIMESTAMP, "title", "image_hash"])
    rows = np.sort(existing_rows.find_latest(catalogue))
    if encoder_version is not None:
        catalogue = catalogue.append_column("title_hash", row_hash.hash_contents(catalogue["title"]))
        hashed = catalogue.select([*KEY, *HASH_COLUMNS]).take(pa.array(rows))
        if not has_images:
            index = hashed.schema.get_field_index("image_hash")
            hashed = hashed.set_column(index, "image_hash", pa.nulls(len(hashed), row_hash.HASH_TYPE))
        few = len(hashed) <= MAX_FEW_ROWS
        _, is_done = existing_rows.find_existing(settings, hashed, encoder_version, few=few)
        rows = rows[~is_done]
    del catalogue
    unreadable = 0
    file_schema = pa.schema([*(dataset.schema.field(name) for name in columns), ("title_hash", row_hash.HASH_TYPE)])
    with (
        replace_atomically(out) as unfinished,
        pq.ParquetWriter(unfinished, file_schema, compression="zstd") as file,
    ):
        for chunk in take.take_chunks(dataset, rows, columns, take.IMAGE_ROWS, batch_rows=take.IMAGE_ROWS):
            contents = chunk["image_bytes"].to_pylist()
            paths = chunk["image"].to_pylist()
            unread = [row for row, path in enumerate(paths) if contents[row] is None and path is not None]
            pictures = read_ahead([settings.find_picture(paths[row]) for row in unread])
            for row, picture in zip(unread, pictures, strict=True):
                try:
                    contents[row] = picture if isinstance(picture, bytes) else _read_picture(picture)
                except UnusableImageError:
                    unreadable += 1
            index = chunk.schema.get_field_index("image_bytes")
            chunk = chunk.set_column(index, chunk.schema.field(index), pa.array(contents, pa.binary()))
            chunk = chunk.append_column("title_hash", row_hash.hash_contents(chunk["title"]))
            file.write_table(chunk.cast(file_schema))
    return len(rows), unreadable


def _read_picture(picture: Path | UnusableImageError) -> bytes:
    if isinstance(picture, UnusableImageError):
        raise picture
    return decoding.read_bytes(picture)


def commit_parts(settings: Settings, folder: Path, now: datetime) -> CommitSummary:
    """Add the rows of a folder's complete parts to `product_embedding`, one commit per part, without duplicates.

    The table is created if it does not exist. What gave no vector goes to the quarantine.

    Args:
        settings: the deployment.
        folder: folder of parts written by `python -m producers.encoders.run`. It is not changed, and may be committed
            again; incomplete parts are skipped.
        now: the created timestamp of the rows and of the quarantine, with a time zone. It replaces that of the parts,
            so the added rows are the last created.

    Returns:
        How many rows were added and left out. All are 0 for a run over an empty catalogue.

    Raises:
        NotFoundError: the folder has no readable run.json, or no complete part.
        CorruptDataError: a complete part is damaged; the parts before it are committed.
        EncoderMismatchError: a part has rows of another encoder than run.json names; the parts before it are committed.
        ConflictError: other runs of this encoder committed first, again and again.
    """
    run = shards.read_description(folder)
    production.record_first_version(settings.offline, run.encoder_version, now)
    training_products.record(settings, run.encoder_version, read_training_products(folder), now)
    encoder_licence.record(settings, run.encoder_version, read_licence(str(folder)), now)
    parts = added = existing = outdated = 0
    complete_rows = sum(run.count_rows(part) for part in range(run.parts) if shards.is_done(folder, part))
    refused: list[quarantine.RejectedRow] = []
    for part in shards.read_shards(folder):
        part_refused = [quarantine.RejectedRow(u.product_id, u.column, u.reason, u.value) for u in part.unusable]
        quarantine.add(settings, STEP, part_refused, now)
        refused += part_refused
        is_outdated = _find_outdated(settings, part.rows)
        current = part.rows.filter(pa.array(~is_outdated))
        new = _add_new_rows(settings, current, run.encoder_version, now)
        parts, added, existing = parts + 1, added + new, existing + len(current) - new
        outdated += int(is_outdated.sum())
    if run.parts and not parts:
        raise NotFoundError(f"{folder}: none of its {run.parts:,} parts is complete; run the encoding to its end")
    missing = run.rows - complete_rows
    return CommitSummary(run, parts, added, existing, outdated, missing, quarantine.count_by_reason(refused))


def _add_new_rows(settings: Settings, rows: pa.Table, encoder_version: str, now: datetime) -> int:
    """Add the rows that the table does not have, in one commit, with `now` as created timestamp; return their number.

    Raises:
        ConflictError: other runs of this encoder committed first, again and again.
    """
    path, app_id = settings.table(schema.EMBEDDING_TABLE), txn_app_id(encoder_version)
    created = pa.repeat(pa.scalar(now, schema.TIMESTAMP), len(rows))
    index = rows.schema.get_field_index(schema.CREATED_TIMESTAMP)
    rows = rows.set_column(index, rows.schema.field(index), created)
    for _ in range(delta.ATTEMPTS):
        txn_version = delta.txn_version(path, app_id)
        exists, is_same = existing_rows.find_existing(settings, rows, encoder_version, few=len(rows) <= MAX_FEW_ROWS)
        has_no_hashes = (existing_rows.hash_contents(rows) == existing_rows.NO_CONTENT).all(axis=1)
        new = rows.filter(pa.array(~(is_same | (exists & has_no_hashes))))
        if not len(new):
            return 0
        try:
            delta.append_if_version(path, new, app_id, txn_version)
        except delta.CommitConflictError:  # another run committed meanwhile, perhaps some of these rows: compare again
            continue
        return len(new)
    raise ConflictError(
        f"table `{schema.EMBEDDING_TABLE}`: other runs committed first {delta.ATTEMPTS} times; run this again"
    )


def _find_outdated(settings: Settings, rows: pa.Table) -> Mask:
    """Return which rows have a content hash that the catalogue has corrected since, bool [n].

    Such a row must not be added after the row of the correction, because it would be the last created. A null hash of a
    row counts as equal. A row whose product and time are not in the catalogue is not outdated.
    """
    path = settings.table(schema.CATALOGUE_TABLE)
    if not delta.exists(path) or not len(rows):
        return np.zeros(len(rows), bool)
    columns = [*KEY, schema.CREATED_TIMESTAMP, "title", "image_hash"]
    catalogue = delta.read(path, columns, where=existing_rows.build_filter(rows, len(rows) <= MAX_FEW_ROWS))
    catalogue = catalogue.append_column("title_hash", row_hash.hash_contents(catalogue["title"]))
    latest = existing_rows.find_latest(catalogue)
    index = row_hash.find_positions(existing_rows.hash_keys(rows), existing_rows.hash_keys(catalogue)[latest])
    in_catalogue, is_outdated = np.flatnonzero(index >= 0), np.zeros(len(rows), bool)
    for name in HASH_COLUMNS:
        row_hashes, catalogue_hashes = (row_hash.from_arrow(table[name]) for table in (rows, catalogue))
        row_hashes, catalogue_hashes = row_hashes[in_catalogue], catalogue_hashes[latest[index[in_catalogue]]]
        is_outdated[in_catalogue] |= row_hashes.any(axis=1) & (row_hashes != catalogue_hashes).any(axis=1)
    return is_outdated
