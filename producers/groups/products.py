"""All products at once, for a training: the newest version of each active one, its vectors and its picture."""

from collections.abc import Callable
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.location import Location
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID
from producers.groups.pictures import describe_pictures

VECTOR_COLUMNS = ("image_vector", "text_vector", "fused_vector", "similar_vector")
CATALOGUE_COLUMNS = ("title", "brand", "category", "price", "image", schema.SELLER_ID, "sales")


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
    paths = embedding["image"].to_pylist()
    contents = embedding["image_bytes"].to_pylist() if "image_bytes" in stored else [None] * len(paths)
    sources = [
        content if content is not None or path is None else settings.find_picture(path)
        for content, path in zip(contents, paths, strict=True)
    ]
    embedding = embedding.append_column("picture", describe_pictures(settings, embedding, sources, now, progress))
    return embedding.drop_columns([name for name in ("image_bytes",) if name in embedding.column_names])


def _read_newest(path: Location, columns: list[str], where: "pc.Expression | None") -> pa.Table:
    """Return the newest row of each product."""
    return versions.read_newest(
        delta.open_dataset(path),
        columns,
        where,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
