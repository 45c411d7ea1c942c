"""What a machine without the store is to encode, and what came back: Parquet out, Parquet parts in."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import schema
from feature_repo.errors import VitrineError
from feature_repo.settings import Settings
from feature_repo.tables import delta, quarantine
from producers import images
from producers.encoders import parts

CATALOGUE = "product_catalogue"
TABLE = "product_embedding"
STEP = "embeddings"
KEY = [schema.PRODUCT_ID, schema.EVENT_TIMESTAMP]
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Committed:
    """What came of a folder of parts."""

    run: parts.Run
    parts: int
    """Whole ones."""
    added: int
    known: int
    """Rows whose product, time and encoder version the table had."""
    unusable: dict[str, int]

    def __str__(self) -> str:
        lines = [
            f"{self.run.encoder_version}: {self.added:,} rows added, {self.known:,} known already, "
            f"{self.parts:,} of {self.run.parts:,} parts were whole"
        ]
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def hand_out(settings: Settings, out: Path, *, encoder_version: str | None) -> tuple[int, int]:
    """Write what is to be encoded as Parquet, files of pictures read into it.

    Args:
        settings: the deployment.
        out: the file; it takes its name when it is whole.
        encoder_version: what has a row of it is left out; all is written if not given.

    Returns:
        Rows written, and those of them whose picture could not be read: the path stays, and the machine that encodes
        names it as unusable.

    Raises:
        VitrineError: there is no catalogue.
    """
    catalogue = delta.read(settings.table(CATALOGUE), [*KEY, "title", "image", "image_bytes"])
    if encoder_version is not None:
        catalogue = catalogue.filter(pa.array(~_known(settings, catalogue, encoder_version)))
    unread, beside = 0, out.with_name(f".{out.name}.writing")
    with pq.ParquetWriter(beside, catalogue.schema, compression="zstd") as file:
        for start in range(0, max(len(catalogue), 1), ROWS_AT_ONCE):
            rows = catalogue.slice(start, ROWS_AT_ONCE)
            contents = rows["image_bytes"].to_pylist()
            for row, path in enumerate(rows["image"].to_pylist()):
                if contents[row] is None and path is not None:
                    try:
                        contents[row] = images.read(Path(path))
                    except images.UnusableImage:
                        unread += 1
            place = rows.schema.get_field_index("image_bytes")
            file.write_table(rows.set_column(place, rows.schema.field(place), pa.array(contents, pa.binary())))
    os.replace(beside, out)
    return len(catalogue), unread


def commit(settings: Settings, folder: Path, now: datetime) -> Committed:
    """Add the rows of a folder's whole parts to `product_embedding`, each part in one commit; known ones are not added.

    Args:
        settings: the deployment.
        folder: of `python -m producers.encoders.run`.
        now: when; the created timestamp of what goes to the quarantine.

    Raises:
        VitrineError: the folder holds no parts, or one that is damaged or of another encoder.
    """
    run = parts.described(folder)
    count = added = known = 0
    refused: list[quarantine.Refused] = []
    for made in parts.read(folder):
        is_known = _known(settings, made.rows, run.encoder_version)
        new = made.rows.filter(pa.array(~is_known))
        if new.num_rows:
            delta.append(settings.table(TABLE), new)
        these = [quarantine.Refused(u.product_id, u.column, u.reason, u.value) for u in made.unusable]
        quarantine.add(settings, STEP, these, now)
        refused += these
        count, added, known = count + 1, added + new.num_rows, known + int(is_known.sum())
    if not count:
        raise VitrineError(f"{folder}: none of its {run.parts:,} parts is whole; run the encoding to its end")
    return Committed(run, count, added, known, quarantine.counts(refused))


def _known(settings: Settings, rows: pa.Table, encoder_version: str) -> np.ndarray:
    """Which rows have one of this encoder in the table, by product and time: bool [rows]."""
    path = settings.table(TABLE)
    if not delta.exists(path) or not len(rows):
        return np.zeros(len(rows), bool)
    # Where an `isin` of the products would be the larger question, all keys of the encoder are read.
    of_these = pc.field("encoder_version") == encoder_version
    if len(rows) <= 4 * ROWS_AT_ONCE:
        of_these &= pc.field(schema.PRODUCT_ID).isin(pc.unique(rows[schema.PRODUCT_ID]))
    there = delta.read(path, KEY, where=of_these).group_by(KEY).aggregate([])
    there = there.append_column("known", pa.repeat(True, len(there)))
    asked = rows.select(KEY).append_column("place", pa.array(np.arange(len(rows))))
    joined = asked.join(there, KEY, join_type="left outer").sort_by("place")
    return joined["known"].fill_null(False).combine_chunks().to_numpy(zero_copy_only=False)
