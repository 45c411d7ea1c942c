"""Features of missing data, online; NaN where a product has no row at all."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from consumers.online import OnlineReader
from consumers.online.coverage import compute_coverage
from feature_repo import definitions
from feature_repo.features.missing import NAMES
from feature_repo.stores.feature_store import open_feature_store
from tests.feature_repo.features import world
from tests.feature_repo.features.world import LISTED, RANKED


def test_missing_features_of_products_that_lack_each_kind_of_data(tmp_path: Path) -> None:
    store = world.deployment(tmp_path)
    names = ["whole", "no picture", "silent tagger", "untagged"]
    vector = [np.ones(world.WIDTH, np.float32)] * 4
    since = [LISTED, LISTED + timedelta(days=1), LISTED, LISTED]
    world.write_rows(
        store,
        "product_embedding",
        since,
        product_id=names,
        fused_vector=vector,
        has_image=[True, False, True, True],
        has_text=[True, True, True, False],
    )
    labels = ["1-3y", "1-3y", None]
    told = ["baby>c", None, None, None]
    world.write_rows(store, "product_tags", since[:3], product_id=names[:3], child_age=labels, category=["baby>c"] * 3)
    world.write_rows(store, "product_catalogue", since, product_id=names, category=told)
    feast = open_feature_store(store)
    feast.apply([getattr(definitions, name) for name in definitions.__all__])
    feast.materialize_incremental(RANKED)
    with OnlineReader(f"lmdb://{tmp_path / 'online'}", project=store.project) as reader:
        ids = {"user_id": "u", "product_id": [*names, "nothing"]}
        block = reader.fetch("ranking", ids, full_feature_names=True)
    found = compute_coverage(block, RANKED)
    assert sorted(found) == sorted(NAMES)
    days = (RANKED - LISTED) / timedelta(days=1)
    wanted = {
        "vector_age_days": [days, days - 1, days, days, np.nan],
        "image_missing": [0, 1, 0, 0, np.nan],
        "text_missing": [0, 0, 0, 1, np.nan],
        "child_age_abstained": [0, 0, 1, np.nan, np.nan],
        "child_gender_abstained": [1, 1, 1, np.nan, np.nan],
        "category_abstained": [0, 0, 0, np.nan, np.nan],
        "category_predicted": [0, 1, 1, np.nan, np.nan],
    }
    for name, values in wanted.items():
        assert found[name].tolist() == pytest.approx(values, nan_ok=True), name
