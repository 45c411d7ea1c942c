"""The products that are compared, as an index: their candidates are found, and their features read, without a scan.

One index for each pair verifier, `group_index/VERIFIER` beside the Delta tables, of the machinery of `produce index`: a
main segment with a graph for each space of candidates, what was added since, and flags of hidden products. It is made
from the tables alone, so a damaged one is built anew.
"""

import shutil
from collections.abc import Callable
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import matrix_to_lists, to_matrix
from feature_repo.config import Settings
from feature_repo.errors import NotFoundError, VitrineError
from feature_repo.index import update
from feature_repo.index.manifest import read_encoder_version
from feature_repo.index.product_index import ProductIndex, open_index
from feature_repo.index.rows import GROUP_FOLDER, PICTURE, find_group_folder
from feature_repo.index.update import IndexedProducts
from feature_repo.offline.versions import read_gone_products
from feature_repo.pairs.metric import PairMetric
from feature_repo.pairs.picture import WIDTH
from feature_repo.pairs.verifier import PairVerifier
from feature_repo.schema import EVENT_TIMESTAMP, PRODUCT_ID
from producers.groups import group_rows
from producers.groups.matching import CANDIDATE_SPACES, project_spaces
from producers.groups.pictures import describe_pictures
from producers.index import changes
from producers.index.changes import IndexChanges
from producers.input_digest import Digests

Int64 = NDArray[np.int64]

VECTORS = ("image_vector", "text_vector", "fused_vector", "similar_vector")
TABLES = (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE)
SOURCES = (*TABLES, schema.ACTIVE_TABLE)
SEARCHED = tuple(f"{name}_vector" for name in CANDIDATE_SPACES)
"""The vectors by which candidates are found; that of the space `picture` depends on the verifier."""
DIGEST = "digest"
"""Array: the digest of `group_rows.hash_inputs`."""
FEATURE_COLUMNS = (PRODUCT_ID, "title", "brand", "category", "price", schema.SELLER_ID, "image_hash")


def update_matching_index(
    settings: Settings,
    encoder_version: str,
    verifier: PairVerifier,
    now: datetime,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProductIndex:
    """Bring the index of a verifier up to date with the catalogue and the vectors, and open it.

    Args:
        settings: the deployment.
        encoder_version: of the vectors and of the verifier.
        verifier: its learned space of pictures is one of the searched ones.
        now: created timestamp of added pictures, with a time zone.
        progress: called with the number of pictures that are described, and of all that are not yet.

    Raises:
        NotFoundError: a table is missing, or no product has vectors.
    """
    folder = find_group_folder(settings, verifier.version)
    try:
        index: ProductIndex | None = open_index(folder, encoder_version)
    except VitrineError:  # there is none, or it is damaged
        index = None
    sources = changes.read_source_versions(settings, SOURCES)
    if index is not None and changes.is_of_other_tables(index, sources):
        index = None
    if index is not None and index.manifest.sources == sources:
        return index
    changed = changes.read_changes(settings, encoder_version, VECTORS, index, TABLES)
    gone = read_gone_products(settings.table(schema.ACTIVE_TABLE)).to_pylist()
    added = None if changed is None else _describe(settings, changed, verifier.metric, now, progress)
    if index is None and added is None:
        raise NotFoundError(f"no product of the catalogue has vectors of {encoder_version}; run: produce embeddings")
    if index is None or (added is not None and update.needs_merge(index, len(added))):
        products = update.gather_products(index, added)
        update.build_index(
            folder, encoder_version, products, gone=gone, sources=sources, searched=SEARCHED, has_keywords=False
        )
    else:
        update.append_products(index, added, gone=gone, sources=sources)
    return open_index(folder, encoder_version)


def _describe(
    settings: Settings,
    changed: IndexChanges,
    metric: PairMetric,
    now: datetime,
    progress: Callable[[int, int], None],
) -> IndexedProducts:
    """Return changed products with the learned space of their pictures, their pictures and digests."""
    rows = changed.rows
    times = rows["embedding_us"].cast(schema.TIMESTAMP)
    listed = describe_pictures(settings, rows.append_column(EVENT_TIMESTAMP, times), changed.pictures, now, progress)
    picture = to_matrix(listed, WIDTH)
    named = {name.removesuffix("_vector"): matrix for name, matrix in changed.vectors.items() if matrix.shape[1]}
    spaces = project_spaces({**named, "pixels": picture}, metric)
    learned = {f"{name}_vector": spaces[name] for name in spaces if f"{name}_vector" not in changed.vectors}
    digests = group_rows.hash_inputs(rows, changed.vectors)
    return IndexedProducts(rows, {**changed.vectors, **learned}, {PICTURE: picture, DIGEST: digests[:, None]})


def read_digests(index: ProductIndex, rows: Int64) -> Digests:
    """Return the digests of the inputs of some products, uint64 [rows]."""
    digests = index.take_array(DIGEST, rows)
    assert digests is not None
    return digests[:, 0]


def remove_other_indexes(settings: Settings, verifier: PairVerifier) -> None:
    """Remove the indexes of earlier verifiers of the same encoder version, and damaged ones."""
    for folder in (settings.local / GROUP_FOLDER).glob("*"):
        if folder.name != verifier.version and read_encoder_version(folder) in (verifier.encoder_version, None):
            shutil.rmtree(folder)


def find_candidates(index: ProductIndex, rows: Int64, asked: Int64, *, top_k: int) -> tuple[Int64, Int64]:
    """Return the distinct pairs of some products and their nearest ones in every space, with left < right, sorted.

    Args:
        index: of the products.
        rows: [n], the rows of the products in the index, ascending; the pairs are of positions in it.
        asked: positions of the products whose neighbours are wanted.
        top_k: neighbours in each space, at least 1; fewer if there are fewer products.
    """
    n = len(rows)
    keys = [np.empty(0, np.int64)]
    for vector in SEARCHED:
        if vector not in index.vectors:
            continue
        queries = index.take_vectors(vector, rows[asked])
        is_known = ~np.isnan(queries).any(axis=1)
        if not is_known.any():
            continue
        found, _ = index.search_batch(vector, queries[is_known], min(top_k + 1, n))
        left, right = np.repeat(asked[is_known], found.shape[1]), np.searchsorted(rows, found.ravel())
        is_pair = (found.ravel() >= 0) & (left != right)
        low, high = (side(left[is_pair], right[is_pair]) for side in (np.minimum, np.maximum))
        keys.append(np.unique(low * n + high))
    key = np.unique(np.concatenate(keys))
    return key // max(n, 1), key % max(n, 1)


def take_products(index: ProductIndex, rows: Int64) -> pa.Table:
    """Return what products are compared by: FEATURE_COLUMNS, the VECTORS that they have, and `picture`."""
    products = index.take(rows, FEATURE_COLUMNS)
    for vector in VECTORS:
        if vector in index.vectors:
            products = products.append_column(vector, matrix_to_lists(index.take_vectors(vector, rows)))
    picture = index.take_array(PICTURE, rows)
    return products if picture is None else products.append_column(PICTURE, matrix_to_lists(picture))
