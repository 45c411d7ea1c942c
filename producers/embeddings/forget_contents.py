"""Delete what is kept of the contents of forgotten products: cached vectors and outputs of towers, of every encoder.

Both are kept by the hash of a content. A content that another product has too stays, because it says nothing of the
forgotten one. The numbers of a tower's output stay in its file, where nothing names them any more, until the folder
`towers` is removed.
"""

from collections.abc import Sequence
from contextlib import closing
from functools import partial

import lmdb
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError
from feature_repo.files.lmdb_environment import SharedEnvironment
from feature_repo.offline import delta
from feature_repo.schema import PRODUCT_ID
from producers.catalogue import row_hash
from producers.embeddings import output_store, vector_cache
from producers.embeddings.vector_cache import IMAGE, TITLE

VECTOR_OWNER_SIZE = 8
"""Bytes that name an encoder version at the start of a key of the cached vectors."""
OUTPUT_OWNER_SIZE = 6
"""Bytes that name a tower at the start of a key of the outputs."""
MAP_SIZE = 1 << 28
REPAIR = "remove the folder: its contents are then encoded again"
Contents = dict[bytes, set[bytes]]
"""IMAGE and TITLE to the hashes of contents."""


def find_contents(settings: Settings, products: Sequence[str]) -> Contents:
    """Return the hashes of the images and titles that only these products have, in all of their versions.

    Args:
        settings: the deployment; without a catalogue there are none.
        products: product ids in every spelling that tables may have.
    """
    path = settings.table(schema.CATALOGUE_TABLE)
    if not products or not delta.exists(path):
        return {IMAGE: set(), TITLE: set()}
    is_own = pc.field(PRODUCT_ID).isin(list(products))
    contents = {}
    for modality, column in ((IMAGE, "image_hash"), (TITLE, "title")):
        own = pc.unique(delta.read(path, [column], where=is_own)[column].drop_null())
        shared = pc.unique(delta.read(path, [column], where=~is_own & pc.field(column).isin(own))[column])
        alone = own.filter(pc.invert(pc.is_in(own, value_set=shared)))
        hashes = row_hash.hash_contents(pa.chunked_array([alone])) if modality == TITLE else alone
        contents[modality] = set(hashes.to_pylist())
    return contents


def delete_contents(settings: Settings, contents: Contents) -> int:
    """Delete cached vectors and outputs of towers of some contents; return their number.

    Args:
        settings: the deployment; without a cache there is nothing to delete.
        contents: from `find_contents`.

    Raises:
        CorruptDataError: the cache or the outputs cannot be read or written.
    """
    removed = 0
    for folder, owner_size in (
        (settings.local / vector_cache.FOLDER, VECTOR_OWNER_SIZE),
        (settings.local / output_store.FOLDER / "index", OUTPUT_OWNER_SIZE),
    ):
        if folder.exists() and any(contents.values()):
            try:
                with closing(SharedEnvironment(folder, map_size=MAP_SIZE, repair=REPAIR)) as environment:
                    removed += environment.run(partial(_delete_hashes, contents, owner_size))
            except lmdb.Error as error:
                raise CorruptDataError(f"LMDB of kept contents at {folder}: {error}; {REPAIR}") from error
    return removed


def _delete_hashes(contents: Contents, owner_size: int, environment: lmdb.Environment) -> int:
    """Delete the keys owner | modality | hash of every owner in an environment; return how many there were."""
    removed = 0
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
        is_found = cursor.first()
        while is_found:
            owner = bytes(cursor.key()[:owner_size])
            removed += sum(
                transaction.delete(owner + modality + hash_)
                for modality, hashes in contents.items()
                for hash_ in hashes
            )
            is_found = cursor.set_range(owner + b"\xff")  # a modality is ASCII: the first key of the next owner
    return removed
