"""Refuses to return vectors of two encoder versions together: cosines between them have no meaning."""

from feature_repo import schema
from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.errors import EncoderMismatchError
from feature_repo.online.feature_batch import FeatureBatch

VERSION = "encoder_version"
"""Name of the feature with the version of the encoder that a row's vectors are of."""
VECTOR_VIEWS = (schema.EMBEDDING_TABLE, schema.INTEREST_TABLE)
"""The views that have vectors."""


def require_one_encoder(*batches: FeatureBatch) -> None:
    """Raise if the batches have vectors of more than one encoder version.

    Only the views in VECTOR_VIEWS are checked, and of those only the ones that were fetched with their feature
    `encoder_version`. Rows without a version, such as absent ones and stale ones without values, are ignored. No
    batches, or batches without such views, pass.

    Args:
        batches: the batches whose vectors will be used together.

    Raises:
        EncoderMismatchError: rows, of one batch or of several, have different encoder versions.
    """
    versions: set[str] = set()
    for batch in batches:
        for name in VECTOR_VIEWS:
            view = batch.views.get(name)
            if view is not None and VERSION in view.rows.columns:
                versions |= _distinct_texts(view.rows.columns[VERSION])
    if len(versions) > 1:
        raise EncoderMismatchError(
            f"vectors of two encoder versions are online: {' and '.join(sorted(versions))}; "
            "run `produce embeddings` and `produce interests` with one encoder, then materialize"
        )


def _distinct_texts(column: Column) -> set[str]:
    """Return the distinct texts of a column, without missing ones."""
    if column.words is None:
        return set(columns.to_arrow(column).drop_null().unique().to_pylist())
    if len(column.words) == 1 and column.valid is None:
        return set(column.words)
    codes = column.values if column.valid is None else column.values[column.valid]
    return {column.words[code] for code in set(codes.tolist())}
