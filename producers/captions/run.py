"""`produce captions`: catalogue images to `product_caption`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.offline import delta, quarantine
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_CAPTION, PRODUCT_ID, TIMESTAMP
from producers import input_digest
from producers.embeddings.existing_rows import find_latest
from producers.encoders.captioner import Captioner, open_captioner
from producers.encoders.image_loader import DecodedImages, Source, decode_images, open_decoding_pool
from producers.stored_rows import find_outdated

STEP = "captions"
"""Name of this step in the quarantine."""
ROWS_PER_COMMIT = 4096
"""Product versions that are captioned and written at once."""
KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
"""The columns that identify a version of a product."""
EMPTY_CAPTION = "the language head wrote nothing"
"""The reason for which an empty caption is quarantined."""


@dataclass(frozen=True)
class CaptioningSummary:
    """What one run did."""

    captioner_version: str
    """Version of the encoder that captioned the images, with its language head."""
    written: int
    """Captions written: rows added to `product_caption`."""
    known: int
    """Product versions that had a caption of this captioner before."""
    without_image: int
    """Product versions without an image; they are not captioned and not quarantined."""
    unusable: dict[str, int]
    """Images that got no caption: reason to their number, the most frequent first."""

    def __str__(self) -> str:
        lines = [
            f"{self.captioner_version}: {self.written:,} captions written, {self.known:,} there already, "
            f"{self.without_image:,} products without an image"
        ]
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def caption_catalogue(
    settings: Settings,
    encoder: str,
    *,
    recompute: bool = False,
    now: datetime,
    progress: Callable[[int, int], None],
) -> CaptioningSummary:
    """Write a caption for every product version with an image that has no current one of this captioner.

    A caption is current if it is the one created last, and was made from the same image.

    If a product version has both a path and the bytes of an image, the bytes are captioned.

    Unusable images and empty captions are quarantined; a later run tries them again. The captions are written in parts
    of ROWS_PER_COMMIT, so that an interrupted run keeps the finished parts.

    Args:
        settings: The deployment.
        encoder: Checkpoint with a language head: directory or hub name.
        recompute: Write all captions again, current ones too.
        now: The created timestamp, with a time zone.
        progress: Called after each part with the number of product versions done so far, and the total of those that
            had no current caption; not called if there are none.

    Raises:
        NotFoundError: There is no catalogue, or the checkpoint has no language head.
        VitrineError: The checkpoint cannot be opened.
    """
    dataset = delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))
    captioner = open_captioner(encoder)
    versions = _read_versions(dataset)
    with_image = versions.filter(pc.field("has_image"))
    digests = input_digest.combine(
        input_digest.hash_texts(with_image["image_hash"]), input_digest.hash_texts(with_image["unhashed_path"])
    )
    outdated = find_outdated(
        settings.table(schema.CAPTION_TABLE),
        with_image,
        digests,
        version_column="captioner_version",
        version=captioner.version,
        encoder_version=None,
        recompute=recompute,
    )
    todo = with_image["row"].to_numpy()[outdated]
    written, done, unusable = 0, 0, Counter[str]()
    if len(todo):
        with open_decoding_pool() as pool:
            columns = [*KEY, "image", "image_bytes"]
            for chunk in take.take_chunks(dataset, todo, columns, ROWS_PER_COMMIT, batch_rows=take.IMAGE_ROWS):
                part = chunk.append_column(
                    schema.INPUT_DIGEST, input_digest.to_arrow(digests[outdated[done : done + len(chunk)]])
                )
                decoded = decode_images(_list_sources(part), captioner.geometry, pool)
                captions = captioner.write(decoded.pixels)
                rows = _build_rows(part.filter(pa.array(decoded.usable)), captions, captioner, now)
                if rows.num_rows:
                    delta.append(settings.table(schema.CAPTION_TABLE), rows)
                rejected = _find_rejected(part, decoded, captions)
                quarantine.add(settings, STEP, rejected, now)
                unusable.update(row.reason for row in rejected)
                written += rows.num_rows
                done += len(part)
                progress(done, len(todo))
    return CaptioningSummary(
        captioner_version=captioner.version,
        written=written,
        known=len(with_image) - len(todo),
        without_image=len(versions) - len(with_image),
        unusable=dict(unusable.most_common()),
    )


def _list_sources(rows: pa.Table) -> list[Source]:
    """Return the bytes or the path of each image."""
    columns = (rows.column(name).to_pylist() for name in ("image", "image_bytes"))
    return [content if content is not None else Path(path) for path, content in zip(*columns, strict=True)]


def _build_rows(rows: pa.Table, captions: list[str], captioner: Captioner, now: datetime) -> pa.Table:
    """Return schema.PRODUCT_CAPTION for the rows whose caption is not empty."""
    columns = {
        PRODUCT_ID: rows[PRODUCT_ID],
        "caption": pa.array(captions, pa.string()),
        "captioner_version": pa.repeat(captioner.version, len(rows)),
        EVENT_TIMESTAMP: rows[EVENT_TIMESTAMP],
        CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(rows)),
        schema.INPUT_DIGEST: rows[schema.INPUT_DIGEST],
    }
    is_written = pa.array([bool(caption) for caption in captions], pa.bool_())
    return pa.table(columns, schema=PRODUCT_CAPTION).filter(is_written)


def _find_rejected(rows: pa.Table, decoded: DecodedImages, captions: list[str]) -> list[quarantine.RejectedRow]:
    """Return the rows without a caption: those with an unusable image, then those with an empty caption."""
    unusable = rows.filter(pa.array(~decoded.usable))[PRODUCT_ID].to_pylist()
    usable = rows.filter(pa.array(decoded.usable))[PRODUCT_ID].to_pylist()
    return [
        quarantine.RejectedRow(product, "image", error.reason, error.detail or None)
        for product, error in zip(unusable, decoded.refused, strict=True)
    ] + [
        quarantine.RejectedRow(product, "image", EMPTY_CAPTION, None)
        for product, caption in zip(usable, captions, strict=True)
        if not caption
    ]


def _read_versions(catalogue: pyarrow.dataset.Dataset) -> pa.Table:
    """Return the product versions of the catalogue without their images: KEY and what identifies the image.

    Of several rows of one KEY the one created last is the version. `row` is its position in the dataset, ascending;
    `has_image` whether it has an image; `unhashed_path` the path of an image that has no hash, because it could not be
    read.
    """
    rows = catalogue.to_table(columns=[*KEY, CREATED_TIMESTAMP, "image_hash", "image"])
    has_image = pc.or_(rows["image"].is_valid(), rows["image_hash"].is_valid())  # bytes always have a hash
    rows = rows.append_column("has_image", has_image)
    path = pc.if_else(rows["image_hash"].is_null(), rows["image"], None)
    rows = rows.append_column("unhashed_path", path).append_column("row", pa.array(np.arange(len(rows))))
    return rows.take(pa.array(np.sort(find_latest(rows)))).drop_columns(["image", CREATED_TIMESTAMP])
