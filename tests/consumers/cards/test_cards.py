"""A feature card says what the registry, the tables and the checks say, and nothing that was not measured."""

import json
import re
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from consumers.cards.card import FeatureCard
from consumers.cards.collect import collect_cards
from consumers.cards.lift_file import find_groups, read_lift
from consumers.cards.pages import format_bytes, format_percent, make_bar_scale
from consumers.ranking import report
from feature_repo import config, run_log
from feature_repo.config import Settings
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.offline import delta, encoder_licence, production
from feature_repo.schema import PRODUCT_EMBEDDING
from feature_repo.stores.feature_store import open_feature_store
from tests.consumers.monitoring.drift.test_check import NOW, tables, written
from tests.consumers.ranking.logs import measure_small_lift, small_log
from tests.deployments import configure, run_command, run_main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OWNER = "ranking-team@shop.example"
OTHER = "next@2"
ONLINE = ("product_embedding", "product_codes")
LATE, UNVECTORED = 40, 30


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """400 products: this week's images are missing, some vectors are NaN, some products are of another encoder too."""
    folder = tmp_path_factory.mktemp("cards")
    rows, last_week = tables(0)
    embedding = rows["product_embedding"]
    for i in np.flatnonzero(last_week).tolist():
        embedding["image_vector"][i] = None
    for i in range(UNVECTORED):
        embedding["text_vector"][i] = [float("nan")] * len(embedding["text_vector"][i])
    written(folder, rows)
    store = configure(folder)
    store.file.write_text(f"owner: {OWNER}\n{store.file.read_text()}")
    path = store.table("product_embedding")
    candidate = [row | {"encoder_version": OTHER} for row in delta.read(path).to_pylist()[:LATE]]
    delta.append(path, pa.Table.from_pylist(candidate, PRODUCT_EMBEDDING))
    production.record_first_version(store.offline, "encoder@1", NOW)
    encoder_licence.record(store, "encoder@1", "Apache-2.0", NOW)
    with run_log.record_run(store, "embeddings", now=NOW) as run:
        run.set_model("encoder@1")
    run_command("feast apply", folder, store)
    open_feature_store(store).materialize_incremental(NOW, list(ONLINE))
    return config.load(store.file)


@pytest.fixture(scope="module")
def lift(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON of a measurement."""
    file = tmp_path_factory.mktemp("lift") / "lift.json"
    file.write_text(report.to_json(measure_small_lift(small_log(), days=6)))
    return file


def collect(store: Settings, lift: Path | None = None) -> Mapping[str, FeatureCard]:
    cards = collect_cards(
        store,
        now=NOW,
        max_age=timedelta(days=1),
        checks_per_alarm=20,
        lift=read_lift(lift) if lift else None,
        progress=lambda _: None,
    )
    return {card.view: card for card in cards}


@pytest.fixture(scope="module")
def cards(store: Settings, lift: Path) -> Mapping[str, FeatureCard]:
    return collect(store, lift)


@pytest.fixture(scope="module")
def pages(store: Settings, lift: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command writes."""
    folder = tmp_path_factory.mktemp("pages") / "new"
    arguments = ["--output", str(folder), "--lift", str(lift), "--now", NOW.isoformat(), "--store", str(store.file)]
    done = run_main("consume", "cards", *arguments, "--json", str(folder / "cards.json"))
    assert done.returncode == 0, done.stderr
    return folder


def test_every_object_of_the_registry_has_a_description_and_the_owner_of_the_deployment(store: Settings) -> None:
    feast = open_feature_store(store)
    views = [*feast.list_batch_feature_views(), *feast.list_on_demand_feature_views()]
    services = feast.list_feature_services()
    assert len(views) == 9
    for one in [*views, *services, *feast.list_entities()]:
        if one.name != "__dummy":
            assert one.description, one.name
            assert one.owner == OWNER, one.name
    for view in views:
        assert view.tags["producer"], view.name


def test_the_json_that_feasts_ui_reads_has_the_descriptions(store: Settings) -> None:
    from google.protobuf.json_format import MessageToDict

    feast = open_feature_store(store)
    registry = MessageToDict(feast.registry.proto())
    (view,) = [one["spec"] for one in registry["featureViews"] if one["spec"]["name"] == "product_tags"]
    assert view["owner"] == OWNER
    assert view["tags"] == {"producer": "produce tags", "comparable_within": "tagger_version"}
    meanings = {field["name"]: field["description"] for field in view["features"]}
    assert meanings["child_age"].startswith("age stage of the child")
    (affinity,) = [one["spec"] for one in registry["onDemandFeatureViews"]]
    assert "same_code: how many of the user's last" in affinity["description"]


def test_every_feature_of_a_card_has_a_meaning(cards: Mapping[str, FeatureCard]) -> None:
    for card in cards.values():
        assert [feature.name for feature in card.features if not feature.meaning] == [], card.view


def test_cards_come_in_the_order_in_which_views_are_computed(cards: Mapping[str, FeatureCard]) -> None:
    assert list(cards)[:3] == ["product_catalogue", "product_embedding", "product_tags"]
    assert list(cards)[-1] == "user_product_affinity"
    assert cards["product_tags"].services == ["ranking", "ranking_with_affinity", "ranking_without_history"]
    assert cards["product_tags"].entities == ["product"]


def test_missing_shares_equal_a_count_over_the_newest_rows_of_the_version_in_production(
    store: Settings, cards: Mapping[str, FeatureCard]
) -> None:
    newest: dict[str, dict[str, Any]] = {}
    for row in delta.read(store.table("product_embedding")).sort_by("event_timestamp").to_pylist():
        if row["encoder_version"] == "encoder@1":
            newest[row["product_id"]] = row
    shares = {feature.name: feature.missing_share for feature in cards["product_embedding"].features}
    for name in ("image_vector", "text_vector", "fused_vector", "has_image"):
        values = [row[name] for row in newest.values()]
        missing = [one is None or (isinstance(one, list) and bool(np.isnan(one[0]))) for one in values]
        assert shares[name] == np.mean(missing), name
    assert shares["text_vector"] == UNVECTORED / 400
    assert 0 < (shares["image_vector"] or 0) < 0.5
    assert {feature.name: feature.missing_share for feature in cards["product_catalogue"].features}["price"] is None


def test_sizes_and_costs_are_those_of_the_stores(store: Settings, cards: Mapping[str, FeatureCard]) -> None:
    card = cards["product_embedding"]
    assert card.table is not None
    assert (card.table.rows, card.table.entities) == (400 + LATE, 400)
    assert card.table.bytes == sum(file.stat().st_size for file in store.table("product_embedding").glob("*.parquet"))
    assert card.online is not None
    assert 3 * 12 * 2 + 12 * 4 < card.online.bytes_per_entity < 200
    assert 0 < card.online.fetch_ms < 1000
    assert cards["product_catalogue"].online is None
    assert cards["product_group"].table is None
    assert cards["user_product_affinity"].table is None


def test_a_card_names_versions_licences_and_what_must_not_be_compared(cards: Mapping[str, FeatureCard]) -> None:
    card = cards["product_embedding"]
    assert [(one.version, one.rows, one.is_newest, one.licence) for one in card.versions] == [
        ("encoder@1", 400, True, "Apache-2.0"),
        (OTHER, LATE, False, None),
    ]
    assert card.other_versions == [OTHER]
    assert cards["product_codes"].comparable_within == "codebook_version"
    assert cards["product_group"].comparable_within is None
    assert card.last_run is not None
    assert card.last_run.model == "encoder@1"


def test_freshness_and_drift_are_those_of_the_checks(cards: Mapping[str, FeatureCard]) -> None:
    card = cards["product_embedding"]
    assert card.freshness is not None
    assert (card.freshness.covered, card.active) == (400, 400)
    assert ("image_vector", "missing") in {(one.subject, one.name) for one in card.drifted}
    assert {*card.drifted} <= {*card.varying_drift} < {*card.drift}
    assert any(line.startswith("Not compared: product_embedding") for line in card.drift_notes)
    assert not cards["product_codes"].drifted
    assert cards["product_codes"].drift
    assert cards["product_group"].freshness is None


def test_lifts_are_those_of_the_groups_that_need_the_view(lift: Path, cards: Mapping[str, FeatureCard]) -> None:
    figures = json.loads(lift.read_text())
    assert find_groups("product_tags")[0] == "tags"
    assert find_groups("user_interest") == ["affinity"]
    assert find_groups("product_catalogue") == []
    summary = cards["product_tags"].lift
    assert summary is not None
    tags = summary.groups[0]
    assert tags.group == "tags"
    assert tags.verdict == figures["verdicts"]["tags"]["verdict"]
    shown = {(one.name, one.slice): (one.lift, *one.interval) for one in tags.comparisons}
    listed = [one for one in figures["comparisons"] if one["slice"] == "all" and one["metric"] == "auc"]
    for one in [*listed, *figures["group_slices"]]:
        if one["name"].split(" over ")[0].split(", ")[0] == "tags":
            assert shown.pop((one["name"], one["slice"])) == (one["lift"], *one["ci95_two_way"])
    assert shown == {}
    assert any(one.slice.startswith("category") for one in tags.comparisons)


def test_without_a_measurement_a_card_says_how_to_make_one(store: Settings, tmp_path: Path) -> None:
    from consumers.cards.pages import CardContext, write_pages

    (card,) = [one for one in collect(store).values() if one.view == "product_tags"]
    assert card.lift is None
    write_pages([card], tmp_path, CardContext("shop", store.file, NOW, "1"))
    page = (tmp_path / "product_tags.html").read_text()
    assert "Not measured. Run <code>consume lift --impressions LOG --json lift.json</code>" in page


def test_the_pages_load_nothing_and_link_to_each_other(pages: Path) -> None:
    index = (pages / "index.html").read_text()
    written_pages = {file.name for file in pages.glob("*.html")}
    assert written_pages == set(re.findall(r'href="([\w.]+)"', index)) | {"index.html"}
    for file in pages.glob("*.html"):
        page = file.read_text()
        assert not re.search(r"<(script|link|iframe|img|object|embed)\b|@import|url\(|https?://", page)
    page = (pages / "product_embedding.html").read_text()
    for part in (OWNER, "Apache-2.0", "not stated", OTHER, "produce embeddings", "added to the baseline"):
        assert part in page, part
    content = json.loads((pages / "cards.json").read_text())
    assert {f"{card['view']}.html" for card in content["cards"]} | {"index.html"} == written_pages


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: Debian's package chromium has it")
def test_nothing_sticks_out_of_a_page_on_a_phone_or_on_a_screen(pages: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            for width in (390, 1280):
                tab = browser.new_page(viewport={"width": width, "height": 844})
                for file in sorted(pages.glob("*.html")):
                    tab.goto(file.as_uri())
                    wide = tab.evaluate("document.documentElement.scrollWidth")
                    assert wide <= width, f"{file.name} at {width}"
                tab.goto((pages / "product_tags.html").as_uri())
                bars = tab.locator(".bar i")
                assert bars.count() > 5
                inside = "e => { const b = e.parentElement.getBoundingClientRect(), i = e.getBoundingClientRect();"
                assert bars.first.evaluate(inside + " return i.left >= b.left - 1 && i.right <= b.right + 1 }")
                tab.close()
        finally:
            browser.close()


def test_a_description_from_the_registry_is_escaped(cards: Mapping[str, FeatureCard], tmp_path: Path) -> None:
    from dataclasses import replace

    from consumers.cards.pages import CardContext, write_pages

    card = replace(cards["product_tags"], description="<script>alert(1)</script>", owner="a<b")
    write_pages([card], tmp_path, CardContext("shop", tmp_path, NOW, "1"))
    for name in ("index.html", "product_tags.html"):
        assert "<script>" not in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not the JSON of `consume lift`"),
        ("[]", "not the JSON of `consume lift`"),
        ('{"encoder": null}', "KeyError: 'verdicts'"),
        ('{"encoder": null, "verdicts": {"tags": 3}, "comparisons": []}', "TypeError"),
    ],
)
def test_a_file_that_is_no_measurement_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "lift.json").write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        read_lift(tmp_path / "lift.json")


def test_what_is_missing_is_named(store: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run `consume lift"):
        read_lift(tmp_path / "none.json")
    bare = configure(tmp_path)
    with pytest.raises(NotFoundError, match="run `feast apply`"):
        collect(bare)
    (tmp_path / "file").write_text("")
    done = run_main("consume", "cards", "--output", str(tmp_path / "file"), "--store", str(store.file))
    assert done.returncode == 2
    assert "name a folder" in done.stderr


def test_numbers_are_short_and_never_rounded_to_none_or_all() -> None:
    assert [format_bytes(count) for count in (None, 0, 999, 1500, 999_600, 2_340_000, 1.5e12, 5e15)] == [
        "–", "0 B", "999 B", "1.5 kB", "1 MB", "2.34 MB", "1.5 TB", "5,000 TB",
    ]  # fmt: skip
    assert [format_percent(share) for share in (None, 0, 1e-5, 0.123456, 0.99999, 1)] == [
        "–", "0%", "<0.1%", "12.3%", ">99.9%", "100%",
    ]  # fmt: skip


def test_bars_share_one_scale_that_has_zero_in_it(cards: Mapping[str, FeatureCard]) -> None:
    summary = cards["product_tags"].lift
    assert summary is not None
    comparisons = summary.groups[0].comparisons
    bars = [bar for bar in map(make_bar_scale(comparisons), comparisons) if bar]
    assert len({round(bar.zero, 6) for bar in bars}) == 1
    assert min(bar.left for bar in bars) == pytest.approx(min(0, *(bar.left for bar in bars)), abs=1e-9)
    for bar in bars:
        assert bar.left >= -1e-9
        assert bar.left <= bar.middle <= bar.left + bar.width <= 100 + 1e-9
