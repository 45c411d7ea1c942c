"""The scale of child ages of a deployment: how it is read, and that offline, online and Feast's values follow it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.online import OnlineReader
from consumers.online.affinity import fetch_with_affinity
from feature_repo import config
from feature_repo.age_scale import DEFAULT_AGE_SCALE, parse_age_scale
from feature_repo.errors import InvalidInputError
from feature_repo.features import ages
from feature_repo.features.affinity import NAMES
from feature_repo.stores.feature_store import open_feature_store
from tests.feature_repo.features import slow_affinity, world
from tests.feature_repo.features.world import RANKED

BOUNDS = (0, 12, 36, 144)
STAGES = "child_age_stages:\n  baby: [0, 12]\n  toddler: [12, 36]\n  child: [36, 144]\n"


def test_without_the_setting_the_scale_is_the_default() -> None:
    assert parse_age_scale(None) == DEFAULT_AGE_SCALE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("baby", "expected two or more stages.*got 'baby'"),
        ({"baby": [0, 12]}, "expected two or more stages"),
        ({"baby": [0, 12], "child": [13, 36]}, "stage `child` begins at month 13, but `baby` ends at 12"),
        ({"baby": [12, 0], "child": [0, 36]}, r"stage 'baby' has \[12, 0\]"),
        ({"baby": [0, True], "child": [1, 36]}, r"stage 'baby' has \[0, True\]"),
        ({"baby": [0, 12], 3: [12, 36]}, "stage 3 has"),
        ({"baby": [0, 12], "child": 36}, "stage 'child' has 36"),
    ],
)
def test_an_invalid_scale_is_refused_in_one_line(value: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"child_age_stages: .*{message}") as caught:
        parse_age_scale(value)
    assert "\n" not in str(caught.value)


def test_an_invalid_scale_is_reported_with_the_file(tmp_path: Path) -> None:
    file = world.deployment(tmp_path).file
    file.write_text(file.read_text() + "child_age_stages: [1, 2]\n")
    with pytest.raises(InvalidInputError, match=r"feature_store\.yaml: child_age_stages: expected two or more"):
        config.load(file)


@given(
    bounds=st.lists(st.integers(0, 240), min_size=3, max_size=7, unique=True).map(lambda one: tuple(sorted(one))),
    months=st.floats(0, 60),
    data=st.data(),
)
def test_children_grow_along_any_scale(bounds: tuple[int, ...], months: float, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 1), min_size=len(bounds) - 1, max_size=len(bounds) - 1))
    mix = (np.array(weights) / sum(weights)).astype(np.float32)
    microseconds = np.array([round(months * ages.MICROSECONDS_PER_MONTH)])
    grown = ages.shift_ages(mix[None], microseconds, bounds)[0]
    np.testing.assert_allclose(grown, slow_affinity.grown(mix, months, bounds), atol=2e-3)
    middles = np.array([(low + high) / 2 for low, high in pairwise(bounds)], np.float32)
    assert ages.find_child_stage(middles, bounds).tolist() == list(range(len(middles)))


def test_offline_online_and_feast_follow_the_scale_of_the_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from feature_repo import definitions

    shop = world.small_shop(products=20, age_bounds=BOUNDS)
    file = world.deployment(tmp_path).file
    file.write_text(file.read_text() + STAGES)
    deployment = config.load(file)
    world.write(shop, deployment)
    store = open_feature_store(deployment)
    store.apply([getattr(definitions, name) for name in definitions.__all__])
    store.materialize_incremental(RANKED)
    user = "u3"
    child = slow_affinity.child_of(shop, user, int(RANKED.timestamp() * 1e6))
    expected = [slow_affinity.affinity(shop, user, child, product) for product in range(len(shop.products))]
    with OnlineReader(f"lmdb://{tmp_path / 'online'}", project=deployment.project) as reader:
        assert reader.child_age_bounds() == BOUNDS
        online = fetch_with_affinity(reader, "ranking_with_affinity", user, shop.products, RANKED).affinity
        reader._table.catalog.set_age_bounds((*BOUNDS, 200))  # as a materialization of another scale does first
        between = fetch_with_affinity(reader, "ranking_with_affinity", user, shop.products, RANKED).affinity
        unknown = {"age_match", "age_gap"}
        assert {name for name in NAMES if not np.array_equal(between[name], online[name], equal_nan=True)} == unknown
        assert all(np.isnan(between[name]).all() for name in unknown)
    monkeypatch.setenv(config.ENVIRONMENT_VARIABLE, str(file))
    last = [product for product, _ in reversed(shop.clicks[user])][:50]
    request = {
        "user_id": [user] * len(shop.products),
        "product_id": shop.products,
        "history_vectors": [shop.vectors[last].ravel().tolist()] * len(shop.products),
        "history_codes": [shop.codes[last].ravel().tolist()] * len(shop.products),
        "ranked_at": [int(RANKED.timestamp() * 1e6)] * len(shop.products),
    }
    names = [f"user_product_affinity:{name}" for name in NAMES]
    served: pd.DataFrame = store.get_online_features(names, request, full_feature_names=True).to_df()
    for name in ("age_match", "age_gap"):
        values = [row[name] for row in expected]
        assert np.isfinite(values).sum() > 8
        np.testing.assert_allclose(online[name], values, atol=1e-3)
        np.testing.assert_allclose(served[f"user_product_affinity__{name}"], values, atol=1e-3)
