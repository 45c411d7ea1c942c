"""The fingerprint of a version of a product: two versions are the same if their fingerprints are equal."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes


def compute_fingerprints(rows: pa.Table, image_hash: pa.Array) -> RowHashes:
    """Return for each row a hash [n, 2] of everything that makes a version, but not of its product id and its time.

    Two versions of a product are the same if their fingerprints are equal. Stored fingerprints are compared with new
    ones, so the result for a given row must never change. Optional columns count only in rows that have a value in one
    of them, because version 0.2 had none. A null differs from an empty text. A null price equals NaN,
    and 0.0 equals -0.0.

    Args:
        rows: n rows with title, image (the path), category, brand, price and the columns of schema.OPTIONAL_PRODUCTS.
        image_hash: [n], the hashes of the images' bytes; null where unknown. Two nulls are equal.
    """
    # There are few distinct categories and brands: each is hashed once.
    repeated = [_hash_repeated(rows[name]) for name in ("category", "brand")]
    price = rows["price"].fill_null(np.nan).to_numpy().astype(np.float64)
    price = np.where(np.isnan(price), np.nan, price + 0.0)  # one bit pattern for all nulls, one for 0.0 and -0.0
    columns = [row_hash.hash_texts(rows[name]) for name in ("title", "image")]
    images = row_hash.hash_texts(pa.chunked_array([image_hash]))
    hashes = row_hash.combine_columns([*columns, images, *repeated, row_hash.hash_numbers(price.view(np.int64))])
    has_options = np.zeros(len(rows), bool)
    for name in schema.OPTIONAL_PRODUCTS.names:
        has_options |= rows[name].is_valid().to_numpy()
    if not has_options.any():
        return hashes
    texts = {name: rows[name].cast(pa.string()) for name in (schema.SELLER_ID, "in_stock", "sales")}
    texts["images"] = pc.binary_join(rows["images"], "\n")
    options = row_hash.combine_columns([hashes, *map(row_hash.hash_texts, texts.values())])
    return np.where(has_options[:, None], options, hashes)


def _hash_repeated(column: pa.ChunkedArray) -> RowHashes:
    """Return the hash of each text [n, 2], computed once for each distinct text."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    hashes = row_hash.hash_texts(pa.chunked_array([encoded.dictionary]))
    return hashes[encoded.indices.to_numpy()]
