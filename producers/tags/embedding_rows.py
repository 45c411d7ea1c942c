"""The embedding rows that tags are made from: of one encoder version, each with its title."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.schema import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PRODUCT_ID

KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
VECTOR_COLUMNS = ["image_vector", "text_vector", "fused_vector"]
FLAG_COLUMNS = ["has_image", "has_text"]


def choose_encoder_version(settings: Settings, named: str | None) -> str:
    """The encoder version whose vectors are used: the named one, else the newest.

    The newest is the one with the newest created timestamp. It is no clear choice while it covers fewer products than
    another one does, as in the middle of an upgrade.

    Raises:
        VitrineError: there are no vectors, none of the named version, or no clear choice.
    """
    rows = delta.read(settings.table(schema.EMBEDDING_TABLE), ["encoder_version", PRODUCT_ID, CREATED_TIMESTAMP])
    versions = rows.group_by("encoder_version").aggregate([(CREATED_TIMESTAMP, "max"), (PRODUCT_ID, "count_distinct")])
    found: dict[str, tuple[datetime, int]] = {
        row["encoder_version"]: (row[f"{CREATED_TIMESTAMP}_max"], row[f"{PRODUCT_ID}_count_distinct"])
        for row in versions.to_pylist()
    }
    if not found:
        raise VitrineError("table `product_embedding` is empty; run `produce embeddings` first")
    if named is not None:
        if named not in found:
            raise VitrineError(f"no vectors of encoder version {named}; there are those of {', '.join(sorted(found))}")
        return named
    newest = max(found, key=lambda version: found[version])
    rivals = [
        version
        for version, (created, products) in sorted(found.items())
        if version != newest and (created == found[newest][0] or products > found[newest][1])
    ]
    if rivals:
        covers = ", ".join(f"{version} covers {found[version][1]} products" for version in [newest, *rivals])
        raise VitrineError(f"which vectors to use is not clear: {covers}; name one with --encoder-version")
    return newest


def read(settings: Settings, encoder_version: str) -> pa.Table:
    """KEY, VECTORS, FLAGS and `title` of every product version with vectors of `encoder_version`, sorted by KEY.

    Of a version that was encoded twice, the row that was created last. `title` is null where the product had none.

    Raises:
        VitrineError: a row with a text vector has no counterpart in `product_catalogue`.
    """
    columns = [*KEY, *VECTOR_COLUMNS, *FLAG_COLUMNS, "encoder_version", CREATED_TIMESTAMP]
    rows = delta.read(settings.table(schema.EMBEDDING_TABLE), columns)
    rows = select_newest_rows(rows.filter(pc.field("encoder_version") == encoder_version))
    catalogue = select_newest_rows(
        delta.read(settings.table(schema.CATALOGUE_TABLE), [*KEY, "title", CREATED_TIMESTAMP])
    )
    numbered = rows.select(KEY).append_column("row", pa.array(np.arange(len(rows))))
    # Only keys and titles go through the join: Arrow joins no lists, and need not carry vectors about.
    titled = numbered.join(catalogue.select([*KEY, "title"]), KEY, join_type="left outer").sort_by("row")
    known = numbered.join(catalogue.select(KEY), KEY, join_type="left anti")
    unknown = known.filter(pc.take(rows["has_text"], known["row"]))
    if len(unknown):
        raise VitrineError(
            f"{len(unknown)} rows of `product_embedding` have a text vector and no row in `product_catalogue` "
            f"({unknown[PRODUCT_ID][0]} at {unknown[EVENT_TIMESTAMP][0]} is one); run `produce catalogue` first"
        )
    return fix_vector_width(rows.select([*KEY, *VECTOR_COLUMNS, *FLAG_COLUMNS])).append_column("title", titled["title"])


def fix_vector_width(rows: pa.Table) -> pa.Table:
    """`rows` with their vectors as lists of one fixed size, so that a column of nulls still has its width.

    Raises:
        VitrineError: the vectors have more than one length.
    """
    lengths = {
        length
        for name in VECTOR_COLUMNS
        for length in pc.unique(pc.list_value_length(rows[name].drop_null())).to_pylist()
    }
    if len(lengths) > 1:
        raise VitrineError(
            f"vectors of one encoder version of lengths {sorted(lengths)}: encode again under one version"
        )
    vector = pa.list_(pa.float32(), lengths.pop() if lengths else 0)
    for name in VECTOR_COLUMNS:
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(vector))
    return rows


def select_newest_rows(rows: pa.Table) -> pa.Table:
    """The row of each KEY that was created last, sorted by KEY."""
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in [*KEY, CREATED_TIMESTAMP]])
    return rows.take(pa.array(order.to_numpy()[_last_of_each_run(rows.select(KEY).take(order))]))


def select_first_versions(rows: pa.Table) -> pa.Table:
    """The first version of each product; `rows` sorted by KEY."""
    if not len(rows):
        return rows
    product = rows[PRODUCT_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    return rows.take(pa.array(np.flatnonzero(np.diff(product, prepend=-1))))


def _last_of_each_run(keys: pa.Table) -> np.ndarray:
    """The rows whose next row has another key; int [n]."""
    if not len(keys):
        return np.empty(0, np.int64)
    codes = [keys[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in keys.column_names]
    ends = np.any([np.diff(code) != 0 for code in codes], axis=0)
    return np.append(np.flatnonzero(ends), len(keys) - 1)
