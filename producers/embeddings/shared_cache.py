"""Fill the cache of a machine from tables in a bucket, which several machines write.

The rows of `product_embedding` hold the vectors that the cache holds, by the same hashes. So nothing else has to be in
the bucket: a machine whose cache lacks a vector reads it from a row that another machine committed. A run reads the
hashes of rows that were added since its last one, and the vectors of unknown hashes only.

`produce forget` reaches the cache of the machine on which it runs. It counts its runs on the table, and another machine
that finds another count than at its last run clears its cache and fills it from the rows that are left.
"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from feature_repo import schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.location import BucketPath
from feature_repo.offline import delta
from producers.embeddings.vector_cache import IMAGE, TITLE, VectorCache

FORGOTTEN = "forgotten contents"
"""Name under which `delta.append_if_version` counts the runs of `produce forget`."""
COLUMNS = ((IMAGE, "image_hash", "image_vector"), (TITLE, "title_hash", "text_vector"))
"""Modality, and its columns of hashes and vectors in `product_embedding`."""


def is_shared(settings: Settings) -> bool:
    """Return whether other machines may write the rows, so that a run without new products may have to fill a cache."""
    return isinstance(settings.table(schema.EMBEDDING_TABLE), BucketPath)


def fill_from_rows(settings: Settings, cache: VectorCache, encoder_version: str) -> int:
    """Put vectors of committed rows into the cache of this machine; return their number.

    Tables on disk have one machine, whose cache has the vectors already: nothing is read then.

    Args:
        settings: the deployment.
        cache: of the encoder's vectors.
        encoder_version: the encoder, as `name@fingerprint`.

    Raises:
        UnavailableError: the bucket does not answer.
        CorruptDataError: the table is damaged.
    """
    path = settings.table(schema.EMBEDDING_TABLE)
    if not is_shared(settings) or not delta.exists(path):
        return 0
    table = delta.open_table(path)
    seen = json.loads(cache.read_note() or "{}")
    forgotten = table.transaction_version(FORGOTTEN) or 0
    if seen.get("forgotten", 0) != forgotten:
        cache.clear()
        seen = {}
    since = seen.get("version") if seen.get("table") == str(table.metadata().id) else None
    if since == table.version():
        return 0
    added = delta.open_added_rows(path, table, since)
    where = pc.field("encoder_version") == encoder_version
    filled = sum(_fill(added, where, cache, *columns) for columns in COLUMNS)
    note = {"table": str(table.metadata().id), "version": table.version(), "forgotten": forgotten}
    cache.write_note(json.dumps(note))
    return filled


def count_forget_run(settings: Settings) -> None:
    """Make the other machines that write the tables of a bucket clear their caches before their next run.

    Raises:
        ConflictError: other writers committed first too often.
        UnavailableError: the bucket does not answer.
    """
    path = settings.table(schema.EMBEDDING_TABLE)
    if is_shared(settings) and delta.exists(path):
        empty = schema.PRODUCT_EMBEDDING.empty_table()
        delta.append_if_version(path, empty, FORGOTTEN, delta.txn_version(path, FORGOTTEN))


def _fill(
    rows: pyarrow.dataset.Dataset,
    where: pyarrow.dataset.Expression,
    cache: VectorCache,
    modality: bytes,
    hash_column: str,
    vector_column: str,
) -> int:
    """Cache the vectors of one modality that are missing; return their number."""
    hashes = rows.to_table(columns=[hash_column], filter=where)[hash_column].to_pylist()
    first = {hash_: row for row, hash_ in reversed(list(enumerate(hashes))) if hash_ is not None}
    is_known = cache.has(modality, list(first))
    missing = np.sort(np.fromiter(first.values(), np.int64, len(first))[~is_known])
    filled = 0
    for batch in take.take_batches(rows, missing, [hash_column, vector_column], where=where):
        usable = pa.Table.from_batches([batch]).filter(pc.field(vector_column).is_valid())
        if len(usable):
            cache.put(modality, usable[hash_column].to_pylist(), take.to_matrix(usable[vector_column]))
        filled += len(usable)
    return filled
