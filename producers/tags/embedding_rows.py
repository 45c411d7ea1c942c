"""The embedding rows that tags are predicted from: one encoder version, with the title of each row."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError
from feature_repo.offline import delta, production
from feature_repo.schema import CREATED_TIMESTAMP, ENCODER_VERSION, EVENT_TIMESTAMP, PRODUCT_ID

KEY = [PRODUCT_ID, EVENT_TIMESTAMP]
"""The columns that identify a version of a product."""
VECTOR_COLUMNS = ["image_vector", "text_vector", "fused_vector"]
FLAG_COLUMNS = ["has_image", "has_text"]


def choose_encoder_version(settings: Settings, encoder_version: str | None) -> str:
    """Return the encoder version whose vectors to use.

    Args:
        settings: the deployment.
        encoder_version: the version to use, which is then returned; None for the one in production. If none is
            recorded, it is the one whose newest row in `product_embedding` was created last.

    Raises:
        NotFoundError: table `product_embedding` does not exist, is empty, or has no row of `encoder_version`.
        InvalidInputError: `encoder_version` is None and the choice is ambiguous: another version has the same newest
            created timestamp, or more products, as in the middle of an upgrade.
    """
    dataset = delta.open_dataset(settings.table(schema.EMBEDDING_TABLE), [ENCODER_VERSION])
    encoder_version = encoder_version or production.read_version(settings.offline)
    if encoder_version is not None:
        where = pc.field(ENCODER_VERSION) == encoder_version
        if dataset.head(1, columns=[ENCODER_VERSION], filter=where).num_rows:
            return encoder_version
    coverage = {
        version: (created, products)
        for version, (products, created) in production.count_products(settings.offline).items()
    }
    if not coverage:
        raise NotFoundError("table `product_embedding` is empty; run `produce embeddings` first")
    if encoder_version is not None:
        raise NotFoundError(
            f"no vectors of encoder version {encoder_version}; there are vectors of {', '.join(sorted(coverage))}"
        )
    newest = max(coverage, key=coverage.__getitem__)
    rivals = [
        version
        for version, (created, products) in sorted(coverage.items())
        if version != newest and (created == coverage[newest][0] or products > coverage[newest][1])
    ]
    if rivals:
        counts = ", ".join(f"{version} covers {coverage[version][1]} products" for version in [newest, *rivals])
        raise InvalidInputError(f"several encoder versions could be used: {counts}; choose one with --encoder-version")
    return newest


def read_embedding_rows(settings: Settings, encoder_version: str) -> pa.Table:
    """Return KEY, VECTOR_COLUMNS, FLAG_COLUMNS and `title` of the product versions with vectors of `encoder_version`.

    All versions of a product are returned, sorted by KEY; there are no rows if the encoder version is unknown. If a
    version was encoded twice, the row that was created last is returned. `title` is that of the same product version in
    `product_catalogue`, from the row that was created last; it is null for a product without a title.

    Args:
        settings: the deployment.
        encoder_version: the full version, as `choose_encoder_version` returns it.

    Raises:
        NotFoundError: a table does not exist, or a row with a text vector has no row in `product_catalogue`.
        CorruptDataError: the vectors have more than one length.
    """
    columns = [*KEY, *VECTOR_COLUMNS, *FLAG_COLUMNS, CREATED_TIMESTAMP]
    of_encoder = pc.field(ENCODER_VERSION) == encoder_version
    rows = _select_newest_rows(delta.read(settings.table(schema.EMBEDDING_TABLE), columns, where=of_encoder))
    catalogue = delta.read(settings.table(schema.CATALOGUE_TABLE), [*KEY, "title", CREATED_TIMESTAMP])
    catalogue = _select_newest_rows(catalogue)
    numbered = rows.select(KEY).append_column("row", pa.array(np.arange(len(rows))))
    # Only keys and titles are joined: Arrow cannot join lists, and copying vectors would be slow.
    with_title = numbered.join(catalogue.select([*KEY, "title"]), KEY, join_type="left outer").sort_by("row")
    without_catalogue = numbered.join(catalogue.select(KEY), KEY, join_type="left anti")
    faulty = without_catalogue.filter(pc.take(rows["has_text"], without_catalogue["row"]))
    if len(faulty):
        raise NotFoundError(
            f"{len(faulty)} rows of `product_embedding` have a text vector and no row in `product_catalogue` "
            f"(for example {faulty[PRODUCT_ID][0]} at {faulty[EVENT_TIMESTAMP][0]}); run `produce catalogue` first"
        )
    vectors = fix_vector_width(rows.select([*KEY, *VECTOR_COLUMNS, *FLAG_COLUMNS]))
    return vectors.append_column("title", with_title["title"])


def fix_vector_width(rows: pa.Table) -> pa.Table:
    """Return `rows` with VECTOR_COLUMNS as fixed-size lists, so that a column of nulls has a width too.

    Null vectors stay null, and other columns stay as they are. The width is 0 if all vectors of all columns are null.

    Args:
        rows: rows with VECTOR_COLUMNS as lists of numbers; there may be none.

    Raises:
        CorruptDataError: the vectors have more than one length.
    """
    lengths = {
        length
        for name in VECTOR_COLUMNS
        for length in pc.unique(pc.list_value_length(rows[name].drop_null())).to_pylist()
    }
    if len(lengths) > 1:
        raise CorruptDataError(
            f"vectors of one encoder version have the lengths {sorted(lengths)}; encode again under one version"
        )
    vector = pa.list_(pa.float32(), lengths.pop() if lengths else 0)
    for name in VECTOR_COLUMNS:
        rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(vector))
    return rows


def select_first_versions(rows: pa.Table) -> pa.Table:
    """Return the row of the first version of each product, sorted by product; no rows if there are none.

    The first version is the one with the earliest event timestamp.

    Args:
        rows: product versions, sorted by KEY.
    """
    if not len(rows):
        return rows
    product = rows[PRODUCT_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    return rows.take(pa.array(np.flatnonzero(np.diff(product, prepend=-1))))


def _select_newest_rows(rows: pa.Table) -> pa.Table:
    """Return the row of each KEY that was created last, sorted by KEY."""
    if not len(rows):
        return rows
    rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in [*KEY, CREATED_TIMESTAMP]]))
    codes = [rows[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in KEY]
    is_last = np.append(np.any([np.diff(code) != 0 for code in codes], axis=0), True)
    return rows.take(pa.array(np.flatnonzero(is_last)))
