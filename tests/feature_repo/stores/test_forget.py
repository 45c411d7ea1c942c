"""`produce forget` removes products and users from the offline tables and from the online store."""

from pathlib import Path

import pyarrow as pa
import pytest
from feast import FeatureStore
from typer.testing import CliRunner, Result

from feature_repo import config
from feature_repo.errors import VitrineError
from feature_repo.offline import delta
from feature_repo.online.open_store import open_configured_table
from producers import maintenance
from producers.cli import app
from tests.arrow_rows import write_arrow
from tests.feature_repo.online.conftest import redis_cluster
from tests.feature_repo.online.versions import VIEW, open_table, write_versions
from tests.feature_repo.stores import world
from tests.servers import RedisServer

__all__ = ["redis_cluster"]

LONG = "x" * 500


def append_affinity(folder: Path, pairs: list[tuple[int, str]]) -> None:
    stamps = pa.array([world.at(1)] * len(pairs), world.STAMP)
    rows = {
        "user_id": [user for user, _ in pairs],
        "product_id": [product for _, product in pairs],
        "n_clicks": [user for user, _ in pairs],
        "event_timestamp": stamps,
        "created_timestamp": stamps,
    }
    delta.append(folder / "tables" / "affinity", pa.table(rows))


def online_clicks(store: FeatureStore, pairs: list[tuple[int, str]]) -> list[int | None]:
    entity_rows = [{"user_id": user, "product_id": product} for user, product in pairs]
    return store.get_online_features(["affinity:clicks"], entity_rows).to_dict()["clicks"]


def forget(store: FeatureStore, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["forget", *arguments, "--store", f"{store.config.repo_path}/feature_store.yaml"])


def test_forgotten_rows_are_gone_online_and_offline_and_do_not_come_back(store: FeatureStore) -> None:
    folder = Path(store.config.repo_path)
    world.append_looks(folder, [("a", 1, 1), ("a", 2, 2), ("b", 1, 1), (LONG, 1, 1), ("毛绒", 1, 1)])
    pairs = [(1, "a"), (2, "a"), (1, "b"), (11, "b"), (2, "aa")]
    append_affinity(folder, pairs)
    store.materialize_incremental(world.at(5), feature_views=["looks", "affinity"])
    arguments = ["--product", "a", "--product", LONG, "--product", "never seen"]
    dry_run = forget(store, *arguments, "--dry-run")
    done = forget(store, *arguments)
    assert done.exit_code == 0, done.output
    assert dry_run.stdout == "dry run, nothing is deleted; the run would report:\n" + done.stdout
    assert sorted(done.stdout.splitlines()) == [
        "affinity, online: 2 rows deleted",
        "affinity: 2 rows deleted",
        "looks, online: 2 rows deleted",
        "looks: 3 rows deleted",
    ]
    store.materialize(world.START, world.at(5), feature_views=["looks", "affinity"])
    assert world.online_looks(store, ["a", "b", LONG, "毛绒"]) == {"b": (1, 1), "毛绒": (1, 1)}
    assert online_clicks(store, pairs) == [None, None, 1, 11, 2]
    assert forget(store, "--product", "a").stdout == "there is no row of them, offline or online\n"


def test_an_id_is_forgotten_in_the_spelling_that_is_given_and_in_its_normalised_form(store: FeatureStore) -> None:
    world.append_looks(Path(store.config.repo_path), [("a ", 1, 1), ("a", 2, 2), ("a\u200b", 1, 1), ("b", 1, 1)])
    store.materialize_incremental(world.at(5), feature_views=["looks"])
    assert world.online_looks(store, ["a", "b"]) == {"a": (2, 2), "b": (1, 1)}
    done = forget(store, "--product", "a ")
    assert sorted(done.stdout.splitlines()) == ["looks, online: 1 rows deleted", "looks: 2 rows deleted"]
    assert world.online_looks(store, ["a", "b"]) == {"b": (1, 1)}


def test_all_rows_of_a_user_are_forgotten(store: FeatureStore) -> None:
    pairs = [(1, "1"), (2, "1"), (1, "b")]
    stamps = pa.array([world.at(1)] * 3, world.STAMP)
    rows = {"user_id": [1, 2, 1], "product_id": ["1", "1", "b"], "clicks": [1, 2, 1]}
    rows_with_timestamps = pa.table(rows | {"event_timestamp": stamps, "created_timestamp": stamps})
    write_arrow(store, "affinity", rows_with_timestamps)
    table = store._get_provider().online_store.online_table(store.config)
    assert table.count_entities({"user_id": ["1"], "product_id": ["1"]}) == {"affinity": 3}
    assert table.delete_entities("user_id", ["1"]) == {"affinity": 2}
    assert online_clicks(store, pairs) == [None, 2, None]
    assert table.delete_entities("product_id", ["1"]) == {"affinity": 1}
    assert table.delete_entities("product_id", []) == {}


def test_rows_whose_keys_are_only_a_hash_are_reported(store: FeatureStore) -> None:
    folder = Path(store.config.repo_path)
    append_affinity(folder, [(1, LONG), (1, "b"), (2, "b")])
    store.materialize_incremental(world.at(5), feature_views=["affinity"])
    with pytest.raises(VitrineError, match="`affinity` has 1 rows whose ids are so long"):
        store._get_provider().online_store.online_table(store.config).delete_entities("user_id", ["1"])
    assert online_clicks(store, [(1, "b"), (2, "b")]) == [None, 2]


def test_rows_on_all_nodes_of_a_cluster_are_forgotten(redis_cluster: list[RedisServer]) -> None:
    table = open_table(f"redis-cluster://{redis_cluster[0].address}")
    view = table.catalog.register_view(VIEW)
    ids = [f"p{i}" for i in range(50)]
    write_versions(table, view, ids, [1] * 50, [1] * 50)
    assert table.delete_entities("product_id", [*ids[:40], "none"]) == {"looks": 40}
    assert len(table.store.list_keys(table.make_keys(view, {"product_id": [""]}, 1)[0], lambda key: True)) == 10
    table.catalog.drop_project()


def deployment(folder: Path, online_store: str) -> config.Settings:
    file = folder / "feature_store.yaml"
    file.write_text(f"project: shop\noffline_store:\n  path: tables\n{online_store}")
    world.append_looks(folder, [("a", 1, 1)])
    return config.load(file)


@pytest.mark.parametrize(
    ("online_store", "message"),
    [
        ("online_store:\n  type: sqlite\n", "online_store.type is 'sqlite'"),
        ("online_store: redis\n", "online_store.type is 'redis'"),
        ("online_store:\n  type: feature_repo.stores.online.LMDBOnlineStore\n", "online_store.path is None"),
        (
            "online_store:\n  type: feature_repo.stores.online.RedisOnlineStore\n  connection_string: ${NOT_SET}\n",
            "connection_string has \\${NOT_SET}, which is not set",
        ),
    ],
)
def test_nothing_is_deleted_if_the_online_store_cannot_be_opened(
    tmp_path: Path, online_store: str, message: str
) -> None:
    shop = deployment(tmp_path, online_store)
    with pytest.raises(VitrineError, match=message):
        maintenance.forget(shop, products=["a"], users=[])
    assert len(delta.read(tmp_path / "tables" / "looks")) == 1


def test_without_an_online_store_only_offline_rows_are_forgotten(tmp_path: Path) -> None:
    shop = deployment(tmp_path, "online_store:\n  type: feature_repo.stores.online.LMDBOnlineStore\n  path: online\n")
    assert open_configured_table(shop) is None
    assert maintenance.forget(shop, products=["a"], users=[]) == maintenance.ForgetSummary({"looks": 1}, {})
    assert not (tmp_path / "online").exists()
