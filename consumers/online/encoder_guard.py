"""Vectors of two encoder versions have angles between them that mean nothing: no answer holds both."""

from feature_repo import schema
from feature_repo.arrow import columns
from feature_repo.arrow.columns import Column
from feature_repo.errors import EncoderMismatchError
from feature_repo.online.feature_batch import FeatureBatch

VERSION = "encoder_version"
VIEWS = (schema.EMBEDDING_TABLE, schema.INTEREST_TABLE)
"""The views of vectors."""


class MixedEncoders(EncoderMismatchError):
    """Vectors of two encoder versions would be compared."""


def require_one_encoder(*blocks: FeatureBatch) -> None:
    """See that the vectors of all blocks are of one encoder; a view without its `encoder_version` is not looked at.

    Raises:
        MixedEncoders: they are of several.
    """
    found: set[str] = set()
    for block in blocks:
        for name in VIEWS:
            view = block.views.get(name)
            if view is not None and VERSION in view.rows.columns:
                found |= _distinct(view.rows.columns[VERSION])
    if len(found) > 1:
        raise MixedEncoders(
            f"vectors of two encoder versions are online: {' and '.join(sorted(found))}; "
            "run `produce embeddings` and `produce interests` with one encoder, and materialize"
        )


def _distinct(column: Column) -> set[str]:
    """The different texts of a column."""
    if column.words is None:
        return set(columns.to_arrow(column).drop_null().unique().to_pylist())
    if len(column.words) == 1 and column.valid is None:
        return set(column.words)
    codes = column.values if column.valid is None else column.values[column.valid]
    return {column.words[code] for code in set(codes.tolist())}
