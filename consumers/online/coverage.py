"""What is not known of the candidates of a block, as features (feature_repo/features/missing.py), online.

block = reader.fetch("ranking", {"user_id": user, "product_id": candidates}, full_feature_names=True)
missing_of(block, now)["vector_age_days"]        # float32 [n]
"""

from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from feature_repo import schema
from feature_repo.arrow import columns, timestamps
from feature_repo.errors import VitrineError
from feature_repo.features import missing
from feature_repo.online.decode import Status
from feature_repo.online.feature_batch import FeatureBatch
from feature_repo.schema import TAGS


def compute_coverage(block: FeatureBatch, now: datetime) -> dict[str, NDArray[np.float32]]:
    """float32 [n] of missing.NAMES, those of tags only where the block has `product_tags`.

    Raises:
        VitrineError: the block has no `product_embedding` with `has_image` and `has_text`.
    """
    read = block.views.get(schema.EMBEDDING_TABLE)
    if read is None or not {"has_image", "has_text"} <= read.rows.columns.keys():
        raise VitrineError(
            f"the block has no {schema.EMBEDDING_TABLE} with has_image and has_text; ask for the whole view"
        )
    known = _there(block, schema.EMBEDDING_TABLE)
    age = timestamps.datetime_to_ticks(now, "us") - read.spread(read.rows.event_timestamp_us)
    has = {}
    for name in ("image", "text"):
        values = np.ma.filled(
            read.spread(columns.to_numpy(read.rows.columns[f"has_{name}"])).astype(np.float32), np.nan
        )
        has[name] = np.where(known, values, np.float32(np.nan))
    features = missing.compute_vector_features(age, known, has)
    if schema.TAGS_TABLE not in block.views:
        return features
    labelled = {
        tag: _labelled(block, schema.TAGS_TABLE, tag)
        for tag in TAGS
        if tag in block.views[schema.TAGS_TABLE].rows.columns
    }
    told = _labelled(block, schema.CATALOGUE_TABLE, "category") if schema.CATALOGUE_TABLE in block.views else None
    return features | missing.compute_tag_features(_there(block, schema.TAGS_TABLE), labelled, told)


def _there(block: FeatureBatch, view: str) -> NDArray[np.bool_]:
    return block.views[view].status() == Status.PRESENT


def _labelled(block: FeatureBatch, view: str, feature: str) -> NDArray[np.bool_]:
    """Where a text feature is there [n]."""
    read = block.views[view]
    return np.asarray(read.spread(np.asarray(columns.to_arrow(read.rows.columns[feature]).is_valid())))
