"""The products that are grouped: the newest version of each active product, its vectors and its picture in numbers."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.offline import delta, versions
from feature_repo.pairs.picture import describe_picture
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TIMESTAMP

VECTOR_COLUMNS = ("image_vector", "text_vector", "fused_vector", "similar_vector")
CATALOGUE_COLUMNS = ("title", "brand", "category", "price", "image", schema.SELLER_ID, "sales")
ROWS_PER_COMMIT = 20_000


def read_products(
    settings: Settings,
    encoder_version: str,
    now: datetime,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """Return the active products that have vectors of an encoder version, sorted by id.

    The columns are `product_id`, CATALOGUE_COLUMNS, VECTOR_COLUMNS, `image_hash`, `picture` (the numbers of
    `describe_picture`, null without a usable picture) and `event_timestamp` of the newest row with vectors. Pictures
    that are not described yet are read, and their numbers added to the table `product_picture`.

    Args:
        settings: the deployment.
        encoder_version: whose vectors are read.
        now: created timestamp of added rows, with a time zone.
        progress: called with the number of pictures that are described and the number of all that are not yet.

    Raises:
        NotFoundError: a table is missing.
    """
    embedding = _read_newest(
        settings.table(schema.EMBEDDING_TABLE),
        [PRODUCT_ID, EVENT_TIMESTAMP, "image_hash", *VECTOR_COLUMNS],
        pc.field("encoder_version") == encoder_version,
    )
    path = settings.table(schema.CATALOGUE_TABLE)
    stored = set(delta.open_dataset(path).schema.names)
    catalogue = _read_newest(
        path, [PRODUCT_ID, *(name for name in (*CATALOGUE_COLUMNS, "image_bytes") if name in stored)], None
    )
    gone = versions.read_gone_products(settings.table(schema.ACTIVE_TABLE)).combine_chunks()
    embedding = embedding.filter(pc.invert(pc.is_in(embedding[PRODUCT_ID], value_set=gone))).sort_by(PRODUCT_ID)
    rows = pc.index_in(embedding[PRODUCT_ID], value_set=catalogue[PRODUCT_ID].combine_chunks())
    catalogue = catalogue.take(rows)
    for name in catalogue.column_names:
        if name != PRODUCT_ID:
            embedding = embedding.append_column(name, catalogue[name])
    pictures = _describe_new(settings, embedding, now, progress)
    embedding = embedding.append_column("picture", pictures)
    return embedding.drop_columns([name for name in ("image_bytes",) if name in embedding.column_names])


def _describe_new(
    settings: Settings, products: pa.Table, now: datetime, progress: Callable[[int, int], None]
) -> pa.ChunkedArray:
    """Return the numbers of each product's picture; those that were not stored are computed and stored."""
    path = settings.table(schema.PICTURE_TABLE)
    stored = pa.table(
        {name: pa.array([], schema.PRODUCT_PICTURE.field(name).type) for name in ("image_hash", "picture")}
    )
    if delta.exists(path):
        stored = delta.read(path, ["image_hash", "picture"])
    hashes = products["image_hash"].combine_chunks()
    is_new = pc.and_(pc.is_valid(hashes), pc.invert(pc.is_in(hashes, value_set=stored["image_hash"].combine_chunks())))
    new = products.filter(is_new)
    sources = [
        content if content is not None else Path(image) if image else None
        for content, image in zip(
            new["image_bytes"].to_pylist() if "image_bytes" in new.column_names else [None] * len(new),
            new["image"].to_pylist(),
            strict=True,
        )
    ]
    for start in range(0, len(new), ROWS_PER_COMMIT):
        progress(start, len(new))
        part = new.slice(start, ROWS_PER_COMMIT)
        rows = pa.table(
            {
                PRODUCT_ID: part[PRODUCT_ID],
                "image_hash": part["image_hash"],
                "picture": pa.array(
                    [_describe(source) for source in sources[start : start + ROWS_PER_COMMIT]], schema.VECTOR
                ),
                EVENT_TIMESTAMP: part[EVENT_TIMESTAMP],
                CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(part)),
            }
        ).cast(schema.PRODUCT_PICTURE)
        delta.append(path, rows)
        stored = pa.concat_tables([stored, rows.select(["image_hash", "picture"])])
    rows = pc.index_in(hashes, value_set=stored["image_hash"].combine_chunks(), skip_nulls=True)
    return stored["picture"].combine_chunks().take(rows)


def _describe(source: Path | bytes | None) -> list[float] | None:
    numbers = None if source is None else describe_picture(source)
    return None if numbers is None else numbers.tolist()


def _read_newest(path: Path, columns: list[str], where: "pc.Expression | None") -> pa.Table:
    """Return the newest row of each product."""
    return versions.read_newest(
        delta.open_dataset(path),
        columns,
        where,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
