"""The pictures of products in numbers: read from the table `product_picture`, or computed and added to it."""

from collections.abc import Callable, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.images.decoding import Source, UnusableImageError
from feature_repo.images.read_ahead import Read, read_ahead
from feature_repo.offline import delta
from feature_repo.pairs.picture import describe_picture
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID, TIMESTAMP

ROWS_PER_COMMIT = 20_000


def describe_pictures(
    settings: Settings,
    products: pa.Table,
    sources: Sequence[Source | None],
    now: datetime,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Array:
    """Return the numbers of `describe_picture` of each product, lists of float32; null without a usable picture.

    Args:
        settings: the deployment.
        products: n products with `product_id`, `image_hash` and `event_timestamp`.
        sources: [n], their pictures; only those with a hash that is not stored yet are opened.
        now: created timestamp of added rows, with a time zone.
        progress: called with the number of pictures that are described, and the number of all that are not yet.
    """
    hashes = products["image_hash"].combine_chunks()
    stored = _read_stored(settings, hashes)
    is_new = pc.and_(pc.is_valid(hashes), pc.invert(pc.is_in(hashes, value_set=stored["image_hash"].combine_chunks())))
    new = pc.indices_nonzero(is_new)
    for start in range(0, len(new), ROWS_PER_COMMIT):
        progress(start, len(new))
        rows = new.slice(start, ROWS_PER_COMMIT)
        part = products.take(rows)
        given = [sources[row] or b"" for row in rows.to_pylist()]
        numbers = [_describe(picture) for picture in read_ahead(given)]
        described = pa.table(
            {
                PRODUCT_ID: part[PRODUCT_ID],
                "image_hash": part["image_hash"],
                "picture": pa.array(numbers, schema.VECTOR),
                EVENT_TIMESTAMP: part[EVENT_TIMESTAMP],
                CREATED_TIMESTAMP: pa.repeat(pa.scalar(now, TIMESTAMP), len(part)),
            }
        ).cast(schema.PRODUCT_PICTURE)
        delta.append(settings.table(schema.PICTURE_TABLE), described)
        stored = pa.concat_tables([stored, described.select(stored.column_names)])
    rows = pc.index_in(hashes, value_set=stored["image_hash"].combine_chunks(), skip_nulls=True)
    return stored["picture"].combine_chunks().take(rows)


def _read_stored(settings: Settings, hashes: pa.Array) -> pa.Table:
    """Return hash and numbers of the stored pictures among the given ones."""
    path = settings.table(schema.PICTURE_TABLE)
    columns = ["image_hash", "picture"]
    if not delta.exists(path):
        return pa.schema([schema.PRODUCT_PICTURE.field(name) for name in columns]).empty_table()
    dataset = delta.open_dataset(path)
    is_wanted = pc.is_in(dataset.to_table(columns=["image_hash"])["image_hash"], value_set=hashes)
    # The numbers are 20 times as many bytes as the hashes, so only those of the wanted rows are kept.
    return take.take_rows(dataset, pc.indices_nonzero(is_wanted).to_numpy(), columns)


def _describe(picture: Read) -> list[float] | None:
    numbers = None if isinstance(picture, UnusableImageError) else describe_picture(picture)
    return None if numbers is None else numbers.tolist()
