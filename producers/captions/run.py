"""The catalogue's pictures to `product_caption`: every version that this captioner has not seen."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_CAPTION, PRODUCT_ID, TIMESTAMP
from producers.encoders.captioner import Captioner, open_captioner
from producers.encoders.image_loader import Source, decode_images, open_decoding_pool

STEP = "captions"
ROWS_PER_COMMIT = 4096
KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
EMPTY_CAPTION = "the language head wrote nothing"


@dataclass(frozen=True)
class CaptioningSummary:
    """What came of one run."""

    captioner_version: str
    written: int
    known: int
    """Catalogue versions that had a caption of this captioner."""
    without_picture: int
    unusable: dict[str, int]
    """Pictures without a caption, by reason."""

    def __str__(self) -> str:
        lines = [
            f"{self.captioner_version}: {self.written:,} captions written, {self.known:,} known already, "
            f"{self.without_picture:,} products without a picture"
        ]
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def caption_catalogue(
    settings: Settings, encoder: str, *, now: datetime, progress: Callable[[int, int], None]
) -> CaptioningSummary:
    """Write a line for every catalogue version with a picture that has none of this captioner.

    Args:
        settings: the deployment.
        encoder: checkpoint with a language head: directory or hub name.
        now: the created timestamp.
        progress: told how many of how many products are done.

    Raises:
        VitrineError: there is no catalogue, or the checkpoint has no language head or cannot be opened.
    """
    catalogue = delta.read(settings.table(schema.CATALOGUE_TABLE), [*KEY, "image", "image_bytes"])
    captioner = open_captioner(encoder)
    pictured = catalogue.filter(pc.field("image").is_valid() | pc.field("image_bytes").is_valid())
    todo = _without_known(settings, pictured, captioner.version)
    written, unusable = 0, Counter[str]()
    if todo.num_rows:
        with open_decoding_pool() as pool:
            for start in range(0, todo.num_rows, ROWS_PER_COMMIT):
                part = todo.slice(start, ROWS_PER_COMMIT)
                decoded = decode_images(_sources(part), captioner.geometry, pool)
                seen = part.filter(pa.array(decoded.usable))
                lines = captioner.write(decoded.pixels)
                rows = _rows(seen, lines, captioner, now)
                if rows.num_rows:
                    delta.append(settings.table(schema.CAPTION_TABLE), rows)
                blind = part.filter(pa.array(~decoded.usable))[PRODUCT_ID].to_pylist()
                refused = [
                    quarantine.RejectedRow(product, "image", error.reason, error.detail or None)
                    for product, error in zip(blind, decoded.refused, strict=True)
                ]
                ids = seen[PRODUCT_ID].to_pylist()
                refused += [
                    quarantine.RejectedRow(product, "image", EMPTY_CAPTION, None)
                    for product, line in zip(ids, lines, strict=True)
                    if not line
                ]
                quarantine.add(settings, STEP, refused, now)
                unusable.update(refusal.reason for refusal in refused)
                written += rows.num_rows
                progress(min(start + ROWS_PER_COMMIT, todo.num_rows), todo.num_rows)
    return CaptioningSummary(
        captioner_version=captioner.version,
        written=written,
        known=len(pictured) - len(todo),
        without_picture=len(catalogue) - len(pictured),
        unusable=dict(unusable.most_common()),
    )


def _sources(rows: pa.Table) -> list[Source]:
    columns = (rows.column(name).to_pylist() for name in ("image", "image_bytes"))
    return [content if content is not None else Path(path) for path, content in zip(*columns, strict=True)]


def _rows(rows: pa.Table, lines: list[str], captioner: Captioner, now: datetime) -> pa.Table:
    """schema.PRODUCT_CAPTION of the rows whose line is not empty."""
    written = pa.array([bool(line) for line in lines], pa.bool_())
    columns = {
        PRODUCT_ID: rows[PRODUCT_ID],
        "caption": pa.array(lines, pa.string()),
        "captioner_version": pa.repeat(captioner.version, len(rows)),
        EVENT_TIMESTAMP: rows[EVENT_TIMESTAMP],
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(rows)),
    }
    return pa.table(columns, schema=PRODUCT_CAPTION).filter(written)


def _without_known(settings: Settings, catalogue: pa.Table, version: str) -> pa.Table:
    """The versions without a caption of this captioner, in the catalogue's order."""
    path = settings.table(schema.CAPTION_TABLE)
    if not delta.exists(path):
        return catalogue
    known = delta.read(path, KEY, where=pc.field("captioner_version") == version)
    place = pa.array(np.arange(len(catalogue)))
    left = catalogue.select(KEY).append_column("place", place).join(known, KEY, join_type="left anti")
    return catalogue.take(left.column("place").combine_chunks().sort())
