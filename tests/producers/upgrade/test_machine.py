"""An upgrade goes from state to state; killed anywhere, the same call ends in the same state."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from consumers.online import OnlineReader
from feature_repo.config import Settings
from feature_repo.errors import ConflictError, InvalidInputError, NotFoundError
from feature_repo.files import locks
from feature_repo.index.manifest import Manifest, read_encoder_version, write_manifest
from feature_repo.index.rows import FOLDER, GROUP_FOLDER, name_folder
from feature_repo.offline import delta, production
from feature_repo.offline.production import State
from feature_repo.stores.feature_store import open_feature_store
from producers import maintenance
from producers.upgrade import machine, versions
from producers.upgrade.both_versions import find_other_version
from tests.feature_repo.features import world
from tests.feature_repo.features.world import RANKED
from tests.producers.upgrade import shop
from tests.producers.upgrade.shop import NEW, OLD, TABLES, Steps

PRODUCTS = world.small_shop().products


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return shop.make(tmp_path_factory.mktemp("made") / "shop")


@pytest.fixture
def settings(made: Settings, tmp_path: Path) -> Settings:
    return shop.copy(made, tmp_path / "shop")


def served_versions(settings: Settings) -> set[str]:
    """The encoder versions that a new reader gets, of all views."""
    with OnlineReader(f"lmdb://{settings.file.parent / 'online'}", project=settings.project) as reader:
        ids = {"product_id": PRODUCTS, "user_id": "u3"}
        batch = reader.fetch("ranking_with_affinity", ids, full_feature_names=True)
    names = [name for name in batch.values if name.endswith("encoder_version")]
    return {value for name in names for value in batch.values[name]} - {None}


def online_views(settings: Settings) -> set[str]:
    with OnlineReader(f"lmdb://{settings.file.parent / 'online'}", project=settings.project) as reader:
        return set(reader._table.catalog.load().views)


def test_readers_get_the_candidate_once_it_is_cut_over_and_the_former_version_after_a_rollback(
    settings: Settings, tmp_path: Path
) -> None:
    steps, before, earlier = Steps(settings), shop.count_rows(settings), RANKED - timedelta(days=1)
    assert shop.start(settings).state is State.STAGED
    assert shop.advance(settings, steps).state is State.SHADOW
    assert shop.count_rows(settings) == {table: 2 * rows for table, rows in before.items()}
    assert shop.advance(settings, steps).state is State.SHADOW  # there is no report yet
    with pytest.raises(InvalidInputError, match="1 gates failed: coverage of product_tags: half of the rows"):
        shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json", passed=False))
    with pytest.raises(InvalidInputError, match=f"compares other@1 with {OLD}; expected {NEW} with {OLD}"):
        shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json", candidate="other@1"))
    with pytest.raises(InvalidInputError, match=f"is of {earlier:%Y-%m-%d}.*: all rows of {NEW} were written later"):
        shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json", created=earlier))
    assert shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json")).state is State.GATED
    assert served_versions(settings) == {OLD}
    after = shop.advance(settings, steps)
    assert (after.state, after.production_version, after.candidate_version) == (State.CUT_OVER, NEW, OLD)
    assert served_versions(settings) == {NEW}
    assert shop.rollback(settings, steps).state is State.ROLLED_BACK
    assert served_versions(settings) == {OLD}
    with pytest.raises(ConflictError, match="the upgrade is rolled back: there is nothing to roll back"):
        shop.rollback(settings, steps)


def test_what_came_after_the_cut_over_is_there_after_a_rollback(settings: Settings, tmp_path: Path) -> None:
    steps = Steps(settings)
    cut_over(settings, steps, tmp_path)
    columns = {"product_id": ["p1"], "has_image": [False], "encoder_version": [NEW]}
    world.write_rows(settings, "product_embedding", [RANKED - timedelta(hours=1)], **columns)
    shop.rollback(settings, steps)
    with OnlineReader(f"lmdb://{settings.file.parent / 'online'}", project=settings.project) as reader:
        batch = reader.fetch("product_embedding", ["p1"])
    assert (batch.values["has_image"].tolist(), batch.values["encoder_version"].tolist()) == ([False], [OLD])


def test_catching_up_writes_what_the_other_version_lacks_and_stays_in_the_state(
    settings: Settings, tmp_path: Path
) -> None:
    steps = Steps(settings)
    shop.start(settings)
    assert shop.catch_up(settings, steps).state is State.STAGED
    assert versions.count_rows(settings, "product_embedding", NEW) == 0
    shop.advance(settings, steps)
    shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json"))
    for state, version, other in ((State.GATED, OLD, NEW), (State.CUT_OVER, NEW, OLD)):
        if state is State.CUT_OVER:
            shop.advance(settings, steps)
        event_time = RANKED - timedelta(hours=1 + (state is State.GATED))
        columns = {"product_id": ["p1"], "has_image": [False], "encoder_version": [version]}
        world.write_rows(settings, "product_embedding", [event_time], **columns)
        assert shop.catch_up(settings, steps).state is state
        counts = [versions.count_rows(settings, "product_embedding", name) for name in (version, other)]
        assert counts[0] == counts[1]
    shop.rollback(settings, steps)
    assert shop.catch_up(settings, steps).state is State.ROLLED_BACK


def cut_over(settings: Settings, steps: Steps, folder: Path) -> None:
    shop.start(settings)
    shop.advance(settings, steps)
    shop.advance(settings, steps, shop.write_gate(folder / "gate.json"))
    assert shop.advance(settings, steps).state is State.CUT_OVER


def test_an_online_store_that_lost_its_data_after_the_cut_over_has_no_mixed_rows_and_can_be_rolled_back(
    settings: Settings, tmp_path: Path
) -> None:
    steps = Steps(settings)
    cut_over(settings, steps, tmp_path)
    shutil.rmtree(settings.file.parent / "online")
    open_feature_store(settings).materialize_incremental(RANKED + timedelta(hours=1))
    assert served_versions(settings) == {NEW}
    shop.catch_up(settings, steps)
    assert served_versions(settings) == {NEW}
    shop.rollback(settings, steps)
    assert served_versions(settings) == {OLD}


def write_indexes(settings: Settings) -> list[Path]:
    """Write an index of products and one of groups for each version, without segments."""
    names = [name_folder(OLD), name_folder(NEW)]
    folders = [settings.local / root / name for root in (FOLDER, GROUP_FOLDER) for name in names]
    for folder, version in zip(folders, [OLD, NEW] * 2, strict=True):
        folder.mkdir(parents=True)
        write_manifest(folder, Manifest(version, 1, (), "flags.npy", {}))
    return folders


@pytest.mark.parametrize("rolls_back", [False, True])
def test_a_retired_version_has_no_row_left_and_can_be_a_candidate_again(
    settings: Settings, tmp_path: Path, rolls_back: bool
) -> None:
    before, views = shop.count_rows(settings), online_views(settings)
    steps = Steps(settings)
    cut_over(settings, steps, tmp_path)
    if rolls_back:
        shop.rollback(settings, steps)
    kept, gone = (OLD, NEW) if rolls_back else (NEW, OLD)
    indexes = write_indexes(settings)
    with pytest.raises(InvalidInputError, match=f"{gone} was in use until 60 s ago.* --grace"):
        machine.retire(settings, clock=lambda: RANKED + timedelta(seconds=60))
    deleted = machine.retire(settings, clock=lambda: RANKED + timedelta(hours=1))
    assert deleted == before == shop.count_rows(settings)
    assert {versions.count_rows(settings, table, gone) for table in TABLES} == {0}
    assert served_versions(settings) == {kept}
    assert [read_encoder_version(index) for index in indexes if index.exists()] == [kept, kept]
    assert len(online_views(settings)) == len(views)
    with pytest.raises(NotFoundError, match="there is no upgrade"):
        shop.rollback(settings, steps)
    options = versions.UpgradeOptions("old" if gone == OLD else "new", None, shop.OPTIONS.steps)
    machine.start(settings, gone, options, now=RANKED)
    assert shop.advance(settings, steps).state is State.SHADOW
    assert served_versions(settings) == {kept}


def test_nothing_is_deleted_while_a_run_may_write_rows_of_the_version(settings: Settings, tmp_path: Path) -> None:
    cut_over(settings, Steps(settings), tmp_path)
    before = shop.count_rows(settings)
    with locks.hold_lock(settings, "embeddings"):
        with pytest.raises(ConflictError, match=f"`produce embeddings` may still write rows of {OLD}"):
            machine.retire(settings, grace=timedelta(0), clock=lambda: RANKED)
        assert find_other_version(settings, NEW) is None  # a run that begins now writes one version
    with locks.hold_lock(settings, "stream"):
        with pytest.raises(ConflictError, match=f"`produce stream` may still write rows of {OLD}.* again in 120 s"):
            machine.retire(settings, clock=lambda: RANKED + timedelta(minutes=1))
        assert shop.count_rows(settings) == before
        machine.retire(settings, clock=lambda: RANKED + timedelta(minutes=2))  # it has seen the state
    assert versions.count_rows(settings, "product_embedding", OLD) == 0


def test_a_rollback_at_once_needs_no_step_of_the_former_encoder(settings: Settings, tmp_path: Path) -> None:
    def fail(arguments: Sequence[str]) -> None:
        raise NotFoundError("no such checkpoint")

    cut_over(settings, Steps(settings), tmp_path)
    context = shop.context(settings, fail)
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        machine.rollback(context)
    assert machine.rollback(context, at_once=True).state is State.ROLLED_BACK
    assert served_versions(settings) == {OLD}


@pytest.mark.parametrize("fail_at", [0, 3, 2 * len(TABLES) - 1])
def test_a_backfill_that_is_interrupted_before_any_commit_ends_as_an_undisturbed_one(
    settings: Settings, fail_at: int
) -> None:
    shop.start(settings)
    with pytest.raises(KeyboardInterrupt):
        shop.advance(settings, Steps(settings, fail_at))
    current = production.read_current(settings.offline)
    assert current is not None
    assert current.state is State.BACKFILLING
    assert served_versions(settings) == {OLD}
    assert shop.advance(settings, Steps(settings)).state is State.SHADOW
    for table in TABLES:
        rows = delta.read(settings.table(table))
        assert versions.count_rows(settings, table, OLD) == versions.count_rows(settings, table, NEW)
        key = [rows.column_names[0], "event_timestamp", "encoder_version"]
        assert len(rows) == len(rows.group_by(key).aggregate([])), table


def test_a_switch_that_is_interrupted_after_the_online_store_is_finished_or_rolled_back(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **changes: object) -> None:
        raise KeyboardInterrupt

    steps = Steps(settings)
    shop.start(settings)
    shop.advance(settings, steps)
    shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json"))
    for finish, state in ((shop.rollback, State.ROLLED_BACK), (shop.advance, State.CUT_OVER)):
        if state is State.CUT_OVER:
            shop.start(settings)
            shop.advance(settings, steps)
            shop.advance(settings, steps, tmp_path / "gate.json")
        with monkeypatch.context() as patch:
            patch.setattr(production, "record_step", interrupt)
            with pytest.raises(KeyboardInterrupt):
                shop.advance(settings, steps)
        assert served_versions(settings) == {NEW}  # online, and the record still says OLD
        assert finish(settings, steps).state is state
        assert served_versions(settings) == {NEW if state is State.CUT_OVER else OLD}


def test_a_forgotten_product_is_gone_from_both_versions_offline_and_online(settings: Settings, tmp_path: Path) -> None:
    steps = Steps(settings)
    shop.start(settings)
    shop.advance(settings, steps)
    counts = [versions.count_rows(settings, "product_embedding", version) for version in (OLD, NEW)]
    maintenance.forget(settings, products=["p1"], users=[])
    for version, before in zip((OLD, NEW), counts, strict=True):
        assert versions.count_rows(settings, "product_embedding", version) < before
    rows = delta.read(settings.table("product_embedding"), ["product_id"])
    assert "p1" not in rows["product_id"].to_pylist()
    shop.advance(settings, steps, shop.write_gate(tmp_path / "gate.json"))
    assert shop.advance(settings, steps).state is State.CUT_OVER
    with OnlineReader(f"lmdb://{settings.file.parent / 'online'}", project=settings.project) as reader:
        batch = reader.fetch("product_embedding", ["p1", "p2"])
    assert batch.values["encoder_version"].tolist() == [None, NEW]


def test_a_vacuum_drops_no_row_because_another_version_has_a_later_one(settings: Settings) -> None:
    shop.start(settings)
    shop.advance(settings, Steps(settings))
    before = shop.count_rows(settings)
    summaries = list(maintenance.vacuum(settings, now=datetime.now(UTC) + timedelta(days=400), grace=timedelta(0)))
    assert sum(each.rows_dropped for each in summaries if each.table in TABLES) == 0
    assert shop.count_rows(settings) == before


def test_an_upgrade_needs_a_step_for_each_table_of_the_version_in_production(settings: Settings) -> None:
    with pytest.raises(InvalidInputError, match=r'table `product_tags` has rows of small@1; .*--step "tags '):
        versions.parse_steps(settings, ["codes"], OLD)
    with pytest.raises(InvalidInputError, match="--step 'catalogue': expected a command among embeddings, tags"):
        versions.parse_steps(settings, ["catalogue"], OLD)
    with pytest.raises(InvalidInputError, match="not a command line"):
        versions.parse_steps(settings, ['tags --labels "open'], OLD)
    steps = versions.parse_steps(settings, ['tags --labels "my labels.csv"', "codes", "interests"], OLD)
    assert steps == (("tags", "--labels", "my labels.csv"), ("codes",), ("interests",))


def test_paths_in_steps_are_absolute_and_commands_are_not_taken_for_paths(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tags").mkdir()
    Path("labels.csv").touch()
    tags, embeddings, *_ = versions.parse_steps(
        settings, ["tags --labels=labels.csv", "embeddings --impressions labels.csv", "codes", "interests"], OLD
    )
    assert tags == ("tags", f"--labels={tmp_path / 'labels.csv'}")
    assert embeddings == ("embeddings", "--impressions", f"{tmp_path / 'labels.csv'}")


def test_an_upgrade_of_a_store_with_an_index_needs_the_step_that_writes_that_of_the_candidate(
    settings: Settings,
) -> None:
    others = ["tags", "codes", "interests"]
    assert len(versions.parse_steps(settings, others, OLD)) == 3
    folder = settings.local / FOLDER / name_folder(OLD)
    folder.mkdir(parents=True)
    write_manifest(folder, Manifest(OLD, 1, (), "flags", {}))
    with pytest.raises(InvalidInputError, match=f'an index of the products of {OLD}.*--step "index"'):
        versions.parse_steps(settings, others, OLD)
    assert versions.parse_steps(settings, [*others, "index --vector fused_vector"], OLD)[-1][0] == "index"


def test_only_one_upgrade_runs_at_a_time(settings: Settings) -> None:
    with pytest.raises(InvalidInputError, match=f"encoder {OLD} is in production already"):
        machine.start(settings, OLD, shop.OPTIONS, now=RANKED)
    shop.start(settings)
    with pytest.raises(ConflictError, match=f"the upgrade from or to {NEW} is staged"):
        machine.start(settings, "third@3", shop.OPTIONS, now=RANKED)
    with pytest.raises(ConflictError, match="the upgrade is staged; advance it, or run `produce upgrade rollback`"):
        machine.retire(settings, clock=lambda: RANKED)
