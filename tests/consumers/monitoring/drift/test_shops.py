"""Drift on shops of the generator: quiet while they are, loud when something happened to their last week."""

from pathlib import Path

import pytest

from feature_repo.config import Settings
from tests.consumers.monitoring.drift import shops
from tests.consumers.monitoring.drift.shops import LAST, QUIET, checked, subjects


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return shops.make(tmp_path_factory.mktemp("shop"), products=450, seed=0, pairs_seen=64, encoders=2)


@pytest.fixture
def spoilt(shop: Settings, tmp_path: Path) -> Settings:
    return shops.copied(shop, tmp_path)


def test_a_quiet_month_raises_no_alarm(shop: Settings) -> None:
    for now in QUIET:
        found = checked(shop, now)
        assert found.p_value is not None, "the week was judged"
        assert found.breaches == []


def test_another_encoder_is_an_alarm_by_its_version_and_is_not_compared(shop: Settings, spoilt: Settings) -> None:
    shops.last_week(spoilt, shops.unchanged, encoder=shop.file.parent / "encoder-1")
    found = checked(spoilt, checks_per_alarm=100)
    assert len(found.changed) == 1
    assert "0% of the earlier products have rows of the new one" in found.breaches[0]
    assert not {one.name for one in found.statistics if one.subject == "fused_vector"}


def test_another_encoder_under_the_old_name_is_an_alarm_by_its_vectors(shop: Settings, spoilt: Settings) -> None:
    from producers.encoders import load

    version = load(str(shop.file.parent / "encoder-0")).version
    shops.last_week(spoilt, shops.unchanged, encoder=shop.file.parent / "encoder-1", version=version)
    found = checked(spoilt, checks_per_alarm=100)
    # Each encoder's fused vectors are whitened by its own products, and so lie alike; the towers' do not.
    assert {"image_vector", "text_vector"} <= subjects(found) <= {"image_vector", "text_vector", "fused_vector"}
    assert next(one.value for one in found.statistics if one.name == "classifier AUC") > 0.95


def test_grey_pictures_are_an_alarm_that_names_the_pictures_and_not_the_titles(
    shop: Settings, spoilt: Settings
) -> None:
    shops.last_week(spoilt, shops.grey, encoder=shop.file.parent / "encoder-0")
    found = checked(spoilt, checks_per_alarm=100)
    assert subjects(found) == {"image_vector", "fused_vector"}
    assert any("open some of today's images" in line for line in found.breaches)


def test_titles_in_the_wrong_encoding_are_an_alarm_that_names_the_titles_and_not_the_pictures(
    shop: Settings, spoilt: Settings
) -> None:
    shops.last_week(spoilt, shops.mojibake, encoder=shop.file.parent / "encoder-0")
    found = checked(spoilt, checks_per_alarm=100)
    assert subjects(found) == {"text_vector", "fused_vector"}
    assert any("is their encoding right?" in line for line in found.breaches)


def test_a_category_that_is_missing_is_an_alarm(spoilt: Settings) -> None:
    shops.without(spoilt, "服装")
    found = checked(spoilt, checks_per_alarm=100)
    assert subjects(found) == {"category"}
    assert "check the feed of the one that is missing" in found.breaches[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_trained_encoder_is_quiet_in_quiet_weeks_and_loud_when_something_happened(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = shops.make(folder, products=1500, seed=seed, pairs_seen=20_000, encoders=1)
    assert [checked(shop, now, seed=seed).breaches for now in QUIET] == [[], [], []]
    for number, (change, loud) in enumerate([(shops.grey, "image_vector"), (shops.mojibake, "text_vector")]):
        (tmp_path / str(number)).mkdir()
        spoilt = shops.copied(shop, tmp_path / str(number))
        shops.last_week(spoilt, change, encoder=folder / "encoder-0")
        assert subjects(checked(spoilt, LAST, seed=seed)) == {loud, "fused_vector"}
