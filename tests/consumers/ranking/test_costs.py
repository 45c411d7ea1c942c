"""Cost of a group: every figure is measured or None."""

from pathlib import Path

import numpy as np
import pytest

from consumers.ranking import costs
from consumers.ranking.costs import FetchCost
from feature_repo import config, definitions
from feature_repo.config import Settings
from feature_repo.online import entity_keys
from feature_repo.online.open_store import open_configured_table
from feature_repo.stores.feature_store import open_feature_store
from tests.deployments import ROOT
from tests.feature_repo.features import world

TIMINGS = [("produce embeddings", 30.0), ("produce tags", 4.0), ("produce interests", 2.0), ("feast apply", 9.0)]
VIEWS = ("product_embedding", "product_tags", "product_codes")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop whose vectors, tags and codes are online; its neighbours are not."""
    settings = world.deployment(tmp_path_factory.mktemp("shop"))
    world.write(world.small_shop(), settings)
    feast = open_feature_store(settings)
    feast.apply([definitions.product, *(getattr(definitions, name) for name in VIEWS)])
    feast.materialize_incremental(world.RANKED, list(VIEWS))
    return settings


def bytes_online(store: Settings, view: str, products: list[str]) -> float:
    """Mean size of the rows that exist, each read separately."""
    table = open_configured_table(store)
    assert table is not None
    keys = entity_keys.make_keys(entity_keys.make_prefix(store.project, view), [products])
    sizes = [len(row) for row in map(table.store.get, keys) if row is not None]
    table.store.close()
    return float(np.mean(sizes))


def test_bytes_per_candidate_sum_the_rows_of_every_fetched_view(store: Settings) -> None:
    products = world.small_shop().products
    costs_by_group = costs.measure_fetch_costs(store, products)
    assert costs_by_group.keys() == {
        ("product_tags",),
        ("product_embedding", "product_tags"),
        ("product_embedding",),
        ("product_codes",),
    }
    candidates = [products[i % len(products)] for i in range(costs.CANDIDATES)]
    for views, each in costs_by_group.items():
        assert each.bytes_per_candidate == pytest.approx(sum(bytes_online(store, v, candidates) for v in views), abs=1)
        assert 0 < each.milliseconds < 1000


def test_fetch_costs_are_empty_if_no_candidate_has_a_row(store: Settings) -> None:
    assert costs.measure_fetch_costs(store, ["nobody"]) == {}
    assert costs.measure_fetch_costs(store, []) == {}


def test_fetch_costs_are_empty_without_an_online_store(tmp_path: Path, store: Settings) -> None:
    assert costs.measure_fetch_costs(world.deployment(tmp_path), ["p1"]) == {}
    (tmp_path / "feature_store.yaml").write_text("project: shop\noffline_store:\n  path: tables\n")
    assert costs.measure_fetch_costs(config.load(tmp_path / "feature_store.yaml"), ["p1"]) == {}


def test_build_seconds_sum_the_steps_that_a_group_needs() -> None:
    groups = ["tags", "affinity", "vectors", "codes", "neighbours", "unknown group"]
    costs_by_group = {cost.group: cost.build_seconds for cost in costs.combine_costs(groups, {}, TIMINGS)}
    assert costs_by_group == {
        "tags": 34.0,
        "affinity": 36.0,
        "vectors": 30.0,
        "codes": None,  # not all steps were timed
        "neighbours": None,
        "unknown group": None,
    }


def test_unmeasured_costs_are_null_not_zero() -> None:
    fetched = {("product_tags",): FetchCost(88, 1.5)}
    tags, vectors = costs.combine_costs(["tags", "vectors"], fetched, [])
    assert tags.as_json() == {
        "group": "tags",
        "bytes_per_candidate": 88,
        "fetch_500_ms": 1.5,
        "build_seconds": None,
    }
    assert vectors == costs.GroupCost("vectors")


def test_every_group_has_views_and_steps() -> None:
    assert costs.VIEWS.keys() == costs.STEPS.keys()
    online = {definitions.__dict__[name].name for name in definitions.__all__ if name.startswith("product_")}
    assert {view for views in costs.VIEWS.values() for view in views} <= online
    commands = (ROOT / "Makefile").read_text()
    assert all(step in commands for steps in costs.STEPS.values() for step in steps)
