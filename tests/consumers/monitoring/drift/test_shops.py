"""Drift on generated shops: no alarm without a change, and an alarm after a change in the last week."""

import shutil
from pathlib import Path

import pytest

from feature_repo.config import Settings
from tests.consumers.monitoring.drift import shops
from tests.consumers.monitoring.drift.shops import LAST, QUIET, run_drift_check, subjects


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return shops.make(tmp_path_factory.mktemp("shop"), products=450, seed=0, pairs_seen=64, encoders=2)


@pytest.fixture
def spoilt(shop: Settings, tmp_path: Path) -> Settings:
    return shops.copied(shop, tmp_path)


def test_a_quiet_month_raises_no_alarm(shop: Settings) -> None:
    for now in QUIET:
        result = run_drift_check(shop, now)
        assert result.p_value is not None, "the week was judged"
        assert result.breaches == []


def test_another_encoder_version_is_an_alarm_and_its_vectors_are_not_compared(shop: Settings, spoilt: Settings) -> None:
    shops.last_week(spoilt, shops.unchanged, encoder=shop.file.parent / "encoder-1")
    assert not run_drift_check(spoilt, checks_per_alarm=100).changed  # readers do not get a version out of production
    shutil.rmtree(spoilt.table("encoder_upgrades"))  # as a store of version 0.2 has none
    result = run_drift_check(spoilt, checks_per_alarm=100)
    assert len(result.changed) == 1
    assert "0% of the earlier products have rows of the new one" in result.breaches[0]
    assert not {one.name for one in result.statistics if one.subject == "fused_vector"}


def test_another_encoder_under_the_old_version_is_an_alarm_of_its_vectors(shop: Settings, spoilt: Settings) -> None:
    from producers.encoders import load

    version = load(str(shop.file.parent / "encoder-0")).version
    shops.last_week(spoilt, shops.unchanged, encoder=shop.file.parent / "encoder-1", version=version)
    result = run_drift_check(spoilt, checks_per_alarm=100)
    # Each encoder's fused vectors are whitened by its own products, and so lie alike; the towers' do not.
    assert {"image_vector", "text_vector"} <= subjects(result) <= {"image_vector", "text_vector", "fused_vector"}
    assert next(one.value for one in result.statistics if one.name == "classifier AUC") > 0.95


def test_grey_images_are_an_alarm_of_the_images_and_not_of_the_titles(shop: Settings, spoilt: Settings) -> None:
    shops.last_week(spoilt, shops.grey, encoder=shop.file.parent / "encoder-0")
    result = run_drift_check(spoilt, checks_per_alarm=100)
    assert subjects(result) == {"image_vector", "fused_vector"}
    assert any("open some of today's images" in line for line in result.breaches)


def test_titles_in_the_wrong_encoding_are_an_alarm_of_the_titles_and_not_of_the_images(
    shop: Settings, spoilt: Settings
) -> None:
    shops.last_week(spoilt, shops.mojibake, encoder=shop.file.parent / "encoder-0")
    result = run_drift_check(spoilt, checks_per_alarm=100)
    assert subjects(result) == {"text_vector", "fused_vector"}
    assert any("is their encoding right?" in line for line in result.breaches)


def test_a_missing_category_is_an_alarm(spoilt: Settings) -> None:
    shops.without(spoilt, "服装")
    result = run_drift_check(spoilt, checks_per_alarm=100)
    assert subjects(result) == {"category"}
    assert "check the feed of the one that is missing" in result.breaches[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_trained_encoder_raises_alarms_only_after_a_change(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = shops.make(folder, products=1500, seed=seed, pairs_seen=20_000, encoders=1)
    assert [run_drift_check(shop, now, seed=seed).breaches for now in QUIET] == [[], [], []]
    for number, (change, loud) in enumerate([(shops.grey, "image_vector"), (shops.mojibake, "text_vector")]):
        (tmp_path / str(number)).mkdir()
        spoilt = shops.copied(shop, tmp_path / str(number))
        shops.last_week(spoilt, change, encoder=folder / "encoder-0")
        assert subjects(run_drift_check(spoilt, LAST, seed=seed)) == {loud, "fused_vector"}
