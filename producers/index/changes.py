"""What was added to the catalogue, the vectors and the tags since an index read them, as rows of the index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow.take import to_matrix
from feature_repo.config import Settings
from feature_repo.images.decoding import Source
from feature_repo.index.nearest import Vectors
from feature_repo.index.product_index import ProductIndex
from feature_repo.index.rows import INDEX_ROWS
from feature_repo.offline import delta, versions
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

SOURCES = (schema.CATALOGUE_TABLE, schema.EMBEDDING_TABLE, schema.TAGS_TABLE, schema.ACTIVE_TABLE)
_ID = " id"
_TIMES = {
    schema.CATALOGUE_TABLE: "catalogue_us",
    schema.EMBEDDING_TABLE: "embedding_us",
    schema.TAGS_TABLE: "tags_us",
}
"""Table -> the column of an index row with the event timestamp of its row."""
_CATALOGUE = ("title", "image", "image_bytes", "category", "brand", "price", "image_hash", schema.SELLER_ID,
              "in_stock", "sales")  # fmt: skip


@dataclass(frozen=True)
class IndexChanges:
    """n products that are new or changed."""

    rows: pa.Table
    """[n] rows of INDEX_ROWS."""
    vectors: Mapping[str, Vectors]
    """float32 [n, d] by name; NaN where a product has none."""
    pictures: Sequence[Source | None]
    """[n], file, object or bytes of each picture."""


def read_source_versions(settings: Settings, tables: Sequence[str] = SOURCES) -> dict[str, int]:
    """Return the newest version of each table, and under `TABLE id` the first 48 bits of its id.

    Tables that do not exist are left out. A table that was removed and written anew has another id.
    """
    sources = {}
    for name in tables:
        path = settings.table(name)
        if delta.exists(path):
            table = delta.open_table(path)
            sources[name] = table.version()
            sources[name + _ID] = int(str(table.metadata().id).replace("-", "")[:12], 16)
    return sources


def is_of_other_tables(index: ProductIndex, sources: Mapping[str, int]) -> bool:
    """Return whether an index was made from a table that is not there any more, even if another has its name.

    Args:
        index: the index; one that does not say the ids of its tables counts as one of these.
        sources: from `read_source_versions`.
    """
    return any(sources.get(name) != table_id for name, table_id in index.manifest.sources.items() if name.endswith(_ID))


def read_changes(
    settings: Settings,
    encoder_version: str,
    vectors: Sequence[str],
    index: ProductIndex | None,
    tables: Sequence[str] = tuple(_TIMES),
) -> IndexChanges | None:
    """Return the products that have newer rows in a table than in an index; None if there are none.

    Of a product, the newest catalogue version, the newest vectors of the encoder version and the newest tags count.
    A product without vectors of this encoder version is left out.

    Args:
        settings: the deployment.
        encoder_version: the encoder of the vectors.
        vectors: their columns.
        index: the open index; None: every product is new.
        tables: those of SOURCES that are read; rows have nulls for what only others have.

    Raises:
        NotFoundError: there is no catalogue, or there are no vectors.
    """
    since = {} if index is None else index.manifest.sources
    added = {
        name: _read_newest(settings, name, encoder_version, vectors, since.get(name))
        if name in tables
        else _list_fields(name, vectors).empty_table()
        for name in _TIMES
    }
    ids = pc.unique(pa.concat_tables([table.select([PRODUCT_ID]) for table in added.values()])[PRODUCT_ID])
    if not len(ids):
        return None
    if index is not None:
        is_new = pa.array(index.find_rows(ids.to_pylist()) < 0)
        for name, table in added.items():
            missing = ids.filter(is_new).filter(
                pc.invert(pc.is_in(ids.filter(is_new), table[PRODUCT_ID].combine_chunks()))
            )
            if len(missing) and name in tables and name in read_source_versions(settings):
                # Rows that were there before, such as those of a product that had no vector yet.
                earlier = _read_newest(settings, name, encoder_version, vectors, None, missing)
                added[name] = pa.concat_tables([table, earlier])
    changed = _join(settings, added, ids, vectors, index)
    return changed if index is None or changed is None else _drop_unchanged(changed, index)


def _drop_unchanged(changed: IndexChanges, index: ProductIndex) -> IndexChanges | None:
    """Return the products that are not in an index as they are now; None if there are none.

    A compaction moves all rows of a table to new files, which then count as added.
    """
    rows = index.find_rows(changed.rows[PRODUCT_ID].to_pylist())
    old = np.flatnonzero(rows >= 0)
    stored, current = index.take(rows[old]), changed.rows.take(pa.array(old))
    is_same = np.ones(len(old), bool)
    for name in INDEX_ROWS.names:
        before, after = (table[name].combine_chunks() for table in (stored, current))
        is_equal = pc.if_else(pc.is_valid(before), pc.equal(before, after).fill_null(False), pc.is_null(after))
        is_same &= is_equal.to_numpy(zero_copy_only=False)
    for vector, matrix in changed.vectors.items():
        earlier, later = index.take_vectors(vector, rows[old]), matrix[old]
        is_same &= ((earlier == later) | (np.isnan(earlier) & np.isnan(later))).all(axis=1)
    kept = np.delete(np.arange(len(rows)), old[is_same])
    if not len(kept):
        return None
    return IndexChanges(
        changed.rows.take(pa.array(kept)),
        {name: matrix[kept] for name, matrix in changed.vectors.items()},
        [changed.pictures[row] for row in kept.tolist()],
    )


def find_same_pictures(rows: pa.Table, index: ProductIndex) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which changed products have the picture that they have in an index, and their rows there.

    Args:
        rows: [n] rows of INDEX_ROWS.
        index: the open index.
    """
    stored = index.find_rows(rows[PRODUCT_ID].to_pylist())
    positions = np.flatnonzero(stored >= 0)
    before = index.take(stored[positions], ["image_hash"])["image_hash"].combine_chunks()
    is_same = pc.equal(rows["image_hash"].combine_chunks().take(pa.array(positions)), before)
    is_same = is_same.fill_null(False).to_numpy(zero_copy_only=False)
    return positions[is_same], stored[positions[is_same]]


def _read_newest(
    settings: Settings,
    name: str,
    encoder_version: str,
    vectors: Sequence[str],
    since: int | None,
    ids: pa.Array | None = None,
) -> pa.Table:
    """Return the newest row of each product among those that a table got since a version; of all if None."""
    path, fields = settings.table(name), _list_fields(name, vectors)
    if name == schema.TAGS_TABLE and not delta.exists(path):
        return fields.empty_table()
    dataset = delta.open_dataset(path)
    if since is not None:
        dataset = delta.open_added_rows(path, delta.open_table(path), since)
    where = None if name == schema.CATALOGUE_TABLE else pc.field("encoder_version") == encoder_version
    if ids is not None:
        among = pc.field(PRODUCT_ID).isin(ids)
        where = among if where is None else where & among
    stored = [column for column in fields.names if column in dataset.schema.names]
    rows = versions.read_newest(
        dataset,
        stored,
        where,
        keys=[PRODUCT_ID],
        event_timestamp=EVENT_TIMESTAMP,
        created_timestamp=CREATED_TIMESTAMP,
    )
    for field in fields:
        if field.name not in stored:  # a catalogue of version 0.2
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(fields.names)


def _list_fields(name: str, vectors: Sequence[str]) -> pa.Schema:
    """Return the columns of a table that the rows of an index are made from."""
    fields, columns = {
        schema.CATALOGUE_TABLE: (schema.CATALOGUE, _CATALOGUE),
        schema.EMBEDDING_TABLE: (schema.PRODUCT_EMBEDDING, vectors),
        schema.TAGS_TABLE: (schema.PRODUCT_TAGS, schema.TAGS),
    }[name]
    return pa.schema([fields.field(column) for column in (PRODUCT_ID, EVENT_TIMESTAMP, *columns)])


def _join(
    settings: Settings,
    added: Mapping[str, pa.Table],
    ids: pa.Array,
    vectors: Sequence[str],
    index: ProductIndex | None,
) -> IndexChanges | None:
    """Return the newest state of products from newly added rows and the rows of the index."""
    n = len(ids)
    old_rows = np.full(n, -1) if index is None else index.find_rows(ids.to_pylist())
    is_old = old_rows >= 0
    stored = INDEX_ROWS.empty_table() if index is None else index.take(old_rows[is_old])
    old_position = np.where(is_old, np.cumsum(is_old) - 1, -1)
    row_of, is_newer = {}, {}
    for name, time in _TIMES.items():
        table = added[name]
        row = pc.index_in(ids, value_set=table[PRODUCT_ID].combine_chunks()).fill_null(-1).to_numpy()
        new_us = _take_or_null(table[EVENT_TIMESTAMP].cast(pa.int64()), row, None).fill_null(-(2**62)).to_numpy()
        old_us = _take_or_null(stored[time], old_position, None).fill_null(-(2**62)).to_numpy()
        is_newer[name] = (row >= 0) & (new_us >= old_us)
        row_of[name] = row
    columns: dict[str, pa.Array] = {PRODUCT_ID: ids}
    sources = {
        **dict.fromkeys(("title", "image", "category", "brand", "price", "image_hash"), schema.CATALOGUE_TABLE),
        **dict.fromkeys((schema.SELLER_ID, "in_stock", "sales"), schema.CATALOGUE_TABLE),
        **{f"tag_{tag}": schema.TAGS_TABLE for tag in schema.TAGS},
        **{time: name for name, time in _TIMES.items()},
    }
    for column, name in sources.items():
        origin = EVENT_TIMESTAMP if column in _TIMES.values() else column.removeprefix("tag_")
        new = _take_or_null(added[name][origin], row_of[name], None)
        new = new.cast(INDEX_ROWS.field(column).type)
        columns[column] = pc.if_else(
            pa.array(is_newer[name]), new, _take_or_null(stored[column], old_position, INDEX_ROWS.field(column).type)
        )
    rows = pa.table(columns).select(INDEX_ROWS.names).cast(INDEX_ROWS)
    matrices = {}
    embeddings = added[schema.EMBEDDING_TABLE]
    for vector in vectors:
        width = index.take_vectors(vector, old_rows[:0]).shape[1] if index is not None else 0
        if embeddings[vector].null_count < len(embeddings):
            new = to_matrix(embeddings[vector])
        else:
            new = np.full((len(embeddings), max(width, 1)), np.nan, np.float32)
        matrix = np.full((n, new.shape[1]), np.nan, np.float32)
        if is_old.any() and index is not None:
            matrix[is_old] = index.take_vectors(vector, old_rows[is_old])
        newer = is_newer[schema.EMBEDDING_TABLE]
        if newer.any():
            matrix[newer] = new[row_of[schema.EMBEDDING_TABLE][newer]]
        matrices[vector] = matrix
    kept = np.flatnonzero(rows["embedding_us"].is_valid().to_numpy() & rows["catalogue_us"].is_valid().to_numpy())
    if not len(kept):
        return None
    catalogue = added[schema.CATALOGUE_TABLE]
    contents = (
        _take_or_null(catalogue["image_bytes"], row_of[schema.CATALOGUE_TABLE], None).take(pa.array(kept)).to_pylist()
    )
    rows = rows.take(pa.array(kept))
    pictures = [
        content if content is not None or path is None else settings.find_picture(path)
        for content, path in zip(contents, rows["image"].to_pylist(), strict=True)
    ]
    return IndexChanges(rows, {name: matrix[kept] for name, matrix in matrices.items()}, pictures)


def _take_or_null(column: pa.ChunkedArray, rows: np.ndarray, type_: pa.DataType | None) -> pa.Array:
    """Return values by row; null for -1."""
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(values, pa.ChunkedArray):  # no chunks
        values = pa.array([], column.type)
    taken = values.take(pa.array(rows, mask=rows < 0))
    return taken if type_ is None else taken.cast(type_)
