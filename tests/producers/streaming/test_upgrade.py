"""A stream follows an encoder upgrade: it writes rows of both versions, each once, and readers lose nothing."""

import shutil
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from consumers.online import Status
from feature_repo import schema
from feature_repo.errors import EncoderMismatchError
from feature_repo.offline import delta, production
from feature_repo.offline.production import State
from producers.codes.run import QualityGates, code_products
from producers.encoders import checkpoint_version
from producers.streaming.streamed_versions import StreamedVersions
from producers.upgrade import machine, versions
from producers.upgrade.machine import UpgradeContext
from producers.upgrade.versions import UpgradeOptions
from tests.producers.streaming import running
from tests.producers.streaming.running import Shop

DERIVED = (schema.EMBEDDING_TABLE, schema.CODES_TABLE)


@pytest.fixture
def old(shop: Shop) -> str:
    """Return the version in production, which 20 streamed products have."""
    write_products(shop, 0, 20)
    return checkpoint_version.read_version(str(shop.encoder))


@pytest.fixture
def next_encoder(tmp_path: Path, shop: Shop, old: str) -> Path:
    """Return an encoder with the same weights and another version."""
    return shutil.copytree(shop.encoder, tmp_path / "next")


def write_products(shop: Shop, first: int, end: int, encoder: Path | None = None) -> None:
    for number in range(first, end):
        shop.send_product(number)
        shop.send_click(number)
    shop.process_all(encoder=str(encoder or shop.encoder))
    production.record_first_version(shop.settings.offline, "", datetime.now(UTC))


def start_upgrade(shop: Shop, next_encoder: Path, former_encoder: str | None = "") -> str:
    former = str(shop.encoder) if former_encoder == "" else former_encoder
    version = checkpoint_version.read_version(str(next_encoder))
    options = UpgradeOptions(str(next_encoder), former, ())
    machine.start(shop.settings, version, options, now=datetime.now(UTC))
    return version


def move(shop: Shop, state: State) -> None:
    """Bring the upgrade to a state, without the rows of a backfill."""
    upgrade = production.read_current(shop.settings.offline)
    assert upgrade is not None
    candidate, now = upgrade.candidate_version, datetime.now(UTC)
    assert candidate is not None
    if state is State.SHADOW:  # the candidate has keys of its own online from here on
        versions.write_online(shop.settings, candidate, upgrade.production_version, now)
    if state in (State.CUT_OVER, State.ROLLED_BACK) and upgrade.state is not State.BACKFILLING:
        machine.switch(shop.settings, upgrade, state, candidate, now)
    elif state is not upgrade.state:
        production.record_step(shop.settings.offline, upgrade, state=state, created=now)


def stored(shop: Shop, table: str, version: str) -> Counter[str]:
    rows = delta.read(shop.settings.table(table), where=pc.field("encoder_version") == version)
    return Counter(rows["product_id" if "product_id" in rows.column_names else "user_id"].to_pylist())


def names(first: int, end: int) -> Counter[str]:
    return Counter(f"p{number}" for number in range(first, end))


def test_a_running_stream_follows_an_upgrade_from_its_begin_to_its_end(
    shop: Shop, old: str, next_encoder: Path
) -> None:
    new = start_upgrade(shop, next_encoder)
    states: list[State] = [State.STAGED, State.BACKFILLING, State.SHADOW, State.CUT_OVER, State.ROLLED_BACK]
    written: list[list[str]] = []
    is_followed = True

    def stop() -> bool:
        """Move the upgrade on, wait for a commit, then send five products and clicks; so for each state."""
        nonlocal is_followed
        if shop.left():
            return False
        if is_followed:
            if len(written) == len(states):
                return True
            move(shop, states[len(written)])
        else:
            written.append([one.version for one in stream.versions.current])
            for number in range(15 + 5 * len(written), 20 + 5 * len(written)):
                shop.send_product(number)
                shop.send_click(number)
        is_followed = not is_followed
        return False

    with shop.stream(commit_seconds=0.0) as stream:
        stream.run(stop)
    assert written == [[old], [old, new], [old, new], [new, old], [old]]
    assert stored(shop, schema.EMBEDDING_TABLE, old) == names(0, 45)
    assert stored(shop, schema.EMBEDDING_TABLE, new) == names(25, 40)
    interests = stored(shop, schema.INTEREST_TABLE, new)
    assert interests.total() == 10  # not during the backfill, which computes them from the log
    assert delta.open_dataset(shop.settings.table(schema.CATALOGUE_TABLE)).count_rows() == 45
    assert shop.dead() == []


def test_after_the_switch_readers_get_what_a_stream_of_the_former_encoder_wrote(
    shop: Shop, old: str, next_encoder: Path
) -> None:
    gates = QualityGates(1.0, 0.0, 1.0)
    new = start_upgrade(shop, next_encoder)
    move(shop, State.BACKFILLING)
    write_products(shop, 20, 40)
    for version in (old, new):
        code_products(
            shop.settings, encoder_version=version, levels=2, size=4, retrain=False, gates=gates, seed=0,
            now=datetime.now(UTC),
        )  # fmt: skip
    move(shop, State.SHADOW)
    write_products(shop, 40, 50)
    move(shop, State.CUT_OVER)
    write_products(shop, 50, 60)
    move(shop, State.RETIRING)
    with pytest.raises(EncoderMismatchError, match=f"{new} is in production"):
        shop.process_all()
    write_products(shop, 60, 65, encoder=next_encoder)
    for table, first_of_new in ((schema.EMBEDDING_TABLE, 20), (schema.CODES_TABLE, 20)):
        assert stored(shop, table, new) == names(first_of_new, 65), table
    assert stored(shop, schema.EMBEDDING_TABLE, old) == names(0, 60)
    with shop.reader() as reader:
        for table in DERIVED:
            batch = reader.fetch(table, sorted(names(40, 65)))
            assert (batch.status == Status.PRESENT).all(), table
        assert reader.fetch("user_interest", ["u3"]).status.tolist() == [Status.PRESENT]


def test_readers_never_get_rows_of_a_candidate_that_has_no_keys_of_its_own_online(
    shop: Shop, old: str, next_encoder: Path
) -> None:
    def read_versions(first: int, end: int) -> set[str]:
        with shop.reader() as reader:
            return set(reader.fetch("product_embedding", sorted(names(first, end))).values["encoder_version"])

    start_upgrade(shop, next_encoder)
    move(shop, State.BACKFILLING)
    write_products(shop, 20, 30)
    assert read_versions(0, 30) == {old}
    move(shop, State.SHADOW)
    for key in shop.redis.scan_iter("*"):
        if shop.redis.type(key) != b"stream":  # the online store loses its data
            shop.redis.delete(key)
    write_products(shop, 30, 40)
    assert read_versions(30, 40) == {old}


def test_rows_of_a_version_that_is_being_deleted_are_not_committed(shop: Shop, old: str, next_encoder: Path) -> None:
    new = start_upgrade(shop, next_encoder)
    move(shop, State.BACKFILLING)
    with shop.stream(commit_seconds=3600.0) as stream:
        shop.send_product(20)
        left = iter([False, False, True])

        def stop() -> bool:
            is_last = next(left)
            if is_last:
                assert stream.writer.uncommitted_rows > 0
                move(shop, State.ROLLED_BACK)
                move(shop, State.RETIRING)
            return is_last

        stream.run(stop)
    assert stored(shop, schema.EMBEDDING_TABLE, new) == names(0, 0)
    assert stored(shop, schema.EMBEDDING_TABLE, old) == names(0, 21)


def test_a_candidate_that_cannot_be_loaded_does_not_end_the_stream(
    shop: Shop, old: str, next_encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = start_upgrade(shop, next_encoder)
    move(shop, State.BACKFILLING)
    (next_encoder / "vocab.txt").write_text("another")
    write_products(shop, 20, 25)
    assert stored(shop, schema.EMBEDDING_TABLE, old) == names(0, 25)
    assert stored(shop, schema.EMBEDDING_TABLE, new) == names(0, 0)
    assert f"no rows of {new} are written" in caplog.text


def test_a_stream_of_the_candidate_writes_rows_of_the_encoder_in_production_too_if_it_is_known(
    shop: Shop, old: str, next_encoder: Path
) -> None:
    new = start_upgrade(shop, next_encoder, former_encoder=None)
    write_products(shop, 20, 25, encoder=next_encoder)
    assert (stored(shop, schema.EMBEDDING_TABLE, old), stored(shop, schema.EMBEDDING_TABLE, new)) == (
        names(0, 20),
        names(20, 25),
    )
    machine.rollback(UpgradeContext(shop.settings, lambda line: None, clock=lambda: datetime.now(UTC), report=print))
    start_upgrade(shop, next_encoder)
    move(shop, State.BACKFILLING)
    write_products(shop, 25, 30, encoder=next_encoder)
    assert stored(shop, schema.EMBEDDING_TABLE, old) == names(0, 20) + names(25, 30)
    assert stored(shop, schema.EMBEDDING_TABLE, new) == names(20, 30)


def test_a_stream_that_is_killed_in_an_upgrade_stores_each_product_once_for_both_versions(
    shop: Shop, old: str, next_encoder: Path
) -> None:
    new = start_upgrade(shop, next_encoder)
    rng, states = np.random.default_rng(0), [State.BACKFILLING, State.SHADOW, State.CUT_OVER]
    for part in range(6):
        for number in range(20 + 40 * part, 60 + 40 * part):
            shop.send_product(number)
        process = running.start(shop, batch_size=8, commit_seconds=0.1)
        deadline = time.monotonic() + 60
        before = running.stream_pending(shop), shop.left()
        while (running.stream_pending(shop), shop.left()) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        if part % 2 == 0:  # in the middle of the messages
            move(shop, states[part // 2])
        time.sleep(float(rng.uniform(0, 0.4)))
        process.kill()
        process.join()
    shop.process_all()
    assert shop.left() == 0
    assert stored(shop, schema.EMBEDDING_TABLE, old) == names(0, 260)
    assert delta.open_dataset(shop.settings.table(schema.CATALOGUE_TABLE)).count_rows() == 260
    of_new = stored(shop, schema.EMBEDDING_TABLE, new)
    assert of_new == names(260 - len(of_new), 260)  # from the take-up of the upgrade on, each once
    assert len(of_new) >= 200
    with shop.reader() as reader:
        assert (reader.fetch("product_embedding", sorted(names(100, 260))).status == Status.PRESENT).all()


def test_reading_the_state_before_each_commit_opens_nothing_anew(shop: Shop, old: str, next_encoder: Path) -> None:
    start_upgrade(shop, next_encoder)
    move(shop, State.BACKFILLING)
    with shop.stream() as stream:
        opened: StreamedVersions = stream.versions
        before = opened.current
        assert opened.refresh() == set()
        assert opened.current is before
        move(shop, State.SHADOW)
        assert opened.refresh() == set()
        assert opened.current[0] is before[0]
        assert opened.current[1].pipeline.encoder is before[1].pipeline.encoder
