"""Refuses to return features of two encoder versions together: they have no meaning for each other."""

from feature_repo import schema
from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.errors import EncoderMismatchError
from feature_repo.online.feature_batch import FeatureBatch


def require_one_encoder(*batches: FeatureBatch) -> None:
    """Raise if the batches have features of more than one encoder version.

    Only the views in schema.ENCODER_TABLES are checked, and of those only the ones that were fetched with their feature
    `encoder_version`. Rows without a version, such as absent ones and stale ones without values, are ignored. No
    batches, or batches without such views, pass.

    Args:
        batches: the batches whose features will be used together.

    Raises:
        EncoderMismatchError: rows, of one batch or of several, have different encoder versions.
    """
    versions: set[str] = set()
    for batch in batches:
        for name in schema.ENCODER_TABLES:
            view = batch.views.get(name)
            if view is not None and schema.ENCODER_VERSION in view.rows.columns:
                versions |= _distinct_texts(view.rows.columns[schema.ENCODER_VERSION])
    if len(versions) > 1:
        raise EncoderMismatchError(
            f"features of two encoder versions are online: {' and '.join(sorted(versions))}; "
            "run the steps from `produce embeddings` on with one encoder, then materialize"
        )


def _distinct_texts(column: Column) -> set[str]:
    """Return the distinct texts of a column, without missing ones."""
    if column.words is None:
        return set(columns.to_arrow(column).drop_null().unique().to_pylist())
    if len(column.words) == 1 and column.valid is None:
        return set(column.words)
    codes = column.values if column.valid is None else column.values[column.valid]
    return {column.words[code] for code in set(codes.tolist())}
