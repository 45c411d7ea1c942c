"""`produce captions` and the language head, on a shop of four colours."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from feature_repo import definitions, schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.images.decoding import MISSING
from feature_repo.offline import delta
from feature_repo.stores.feature_store import open_feature_store
from producers import maintenance
from producers.captions.facts import NO_TAGS, find_statements
from producers.captions.prompts import NO_ROOM, NO_WORDS, CaptionOptions
from producers.captions.run import CaptioningSummary, caption_catalogue
from producers.catalogue.ingest import ingest_products
from producers.encoders.checkpoint import load
from producers.encoders.tiny_clip import train_tokenizer
from producers.encoders.train import train
from producers.encoders.training import language
from producers.encoders.training.language import detokenize, find_word_beginnings
from producers.encoders.training.recipe import Recipe
from producers.learning.encoder import HELD_OUT, train_encoder
from tests.deployments import configure
from tests.producers.catalogue.shop import ingest, open_deployment, write_products
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
COLOURS = {"红色": (220, 30, 30), "绿色": (30, 180, 60), "蓝色": (40, 60, 220), "黑色": (15, 15, 15)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    for name, rgb in COLOURS.items():
        Image.new("RGB", (40, 40), rgb).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in COLOURS}


@pytest.fixture(scope="module")
def captioner(images: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a language head, trained on 64 titles that name the colour of their image."""
    folder = tmp_path_factory.mktemp("encoders") / "small"
    names = [list(COLOURS)[number % len(COLOURS)] for number in range(64)]
    titles = [f"{name}连衣裙" if number % 3 else f"宝宝{name}连衣裙" for number, name in enumerate(names)]
    train(
        titles,
        [images[name] for name in names],
        folder,
        recipe=Recipe(objectives=("contrastive", "language"), batch=32),
        pairs_seen=2400,
        seed=0,
        progress=lambda *_: None,
    )
    return folder


WORDS = {
    "colour": {"red": ["红色"], "green": ["绿色"], "blue": ["蓝色"], "black": ["黑色"]},
    "child_age": {"1-3y": ["1-3岁"]},
    "category": {"dress": ["连衣裙"]},
    "baby": {"yes": ["宝宝"]},  # no tag: never stated
}
COLOUR_VALUES = {"红色": "red", "绿色": "green", "蓝色": "blue", "黑色": "black"}


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


def captioned(
    store: Settings, encoder: Path, day: int = 0, recompute: bool = False, words: dict = WORDS, **options: object
) -> CaptioningSummary:
    now = NOW + timedelta(days=day)
    return caption_catalogue(
        store, str(encoder), words, CaptionOptions(**options), recompute=recompute, now=now, progress=lambda *_: None
    )


def tag(store: Settings, day: int = 0, **values: tuple[dict[str, float], float | None]) -> None:
    """Write tags for products: further tags with probabilities, and the probability of the age 1-3y or None."""
    versions = delta.read(store.table("product_catalogue"), ["product_id", "event_timestamp"]).to_pylist()
    rows = [
        version
        | {
            "child_age": None if values[version["product_id"]][1] is None else "1-3y",
            "child_age_probability": values[version["product_id"]][1],
            "further_tags": list(values[version["product_id"]][0]),
            "further_tag_probabilities": list(values[version["product_id"]][0].values()),
            "encoder_version": "small@1",
            "created_timestamp": NOW + timedelta(days=day),
        }
        for version in versions
        if version["product_id"] in values
    ]
    delta.append(store.table("product_tags"), pa.Table.from_pylist(rows, schema.PRODUCT_TAGS))


def tag_colours(store: Settings) -> None:
    tag(store, **{name: ({f"colour={COLOUR_VALUES[name]}": 0.97}, 0.6) for name in COLOURS})


def captions(store: Settings) -> dict[str, dict]:
    rows = delta.read(store.table("product_caption")).sort_by("created_timestamp").to_pylist()
    return {row["product_id"]: row for row in rows}


@pytest.fixture
def shop(store: Settings, images: dict[str, Path]) -> Settings:
    """Four products, whose tags are sure of the colour and not of the age."""
    ingest(store, *({"product_id": name, "title": "帽子", "image": str(file)} for name, file in images.items()))
    tag_colours(store)
    return store


@pytest.mark.parametrize("style", ["plain", "lively"])
def test_a_caption_states_what_the_tags_are_sure_of_and_nothing_else(
    shop: Settings, captioner: Path, style: str
) -> None:
    summary = captioned(shop, captioner, style=style)
    assert (summary.written, summary.stated, summary.missing) == (4, {"colour": 4}, {})
    for name, row in captions(shop).items():
        assert name in row["caption"]
        assert find_statements(row["caption"], WORDS) == {("colour", COLOUR_VALUES[name])}
        assert row["stated"] == [f"colour={COLOUR_VALUES[name]}"]
        assert (row["style"], row["language"], row["missing_reason"]) == (style, "zh", None)
        assert row["captioner_version"] == summary.captioner_version
        assert row["encoder_version"] == summary.encoder_version == load(str(captioner)).version
        assert row["event_timestamp"] < row["created_timestamp"] == NOW


def test_a_lively_caption_has_words_of_the_language_head_and_a_plain_one_has_not(
    shop: Settings, captioner: Path
) -> None:
    words = {"colour": WORDS["colour"]}  # now "连衣裙" is no statement, and the head may write it
    captioned(shop, captioner, words=words)
    assert {row["caption"] for row in captions(shop).values()} == set(COLOURS)
    captioned(shop, captioner, 1, words=words, style="lively")
    assert all("连衣裙" in row["caption"] for row in captions(shop).values())
    captioned(shop, captioner, 2, words=words, style="lively", length=4)  # no room for a continuation of three
    assert {row["caption"] for row in captions(shop).values()} == set(COLOURS)


def test_a_row_without_a_caption_says_why_and_reasons_are_counted(
    store: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    products = {"unsure": "红色", "untagged": "绿色", "wordless": "蓝色"}
    ingest(store, *({"product_id": one, "image": str(images[name])} for one, name in products.items()))
    tag(store, unsure=({"colour=red": 0.89}, 0.5), wordless=({"season=summer": 0.99}, None))
    summary = captioned(store, captioner)
    reasons = {"unsure": "no attribute is at least 90% sure", "untagged": NO_TAGS, "wordless": NO_WORDS}
    assert {name: row["missing_reason"] for name, row in captions(store).items()} == reasons
    assert summary.missing == dict.fromkeys(reasons.values(), 1)
    assert "no caption for 1: no attribute is at least 90% sure" in str(summary)
    assert all(row["caption"] is None and row["stated"] == [] for row in captions(store).values())
    captioned(store, captioner, 1, min_probability=0.85)
    assert captions(store)["unsure"]["caption"] == "红色"
    captioned(store, captioner, 2, length=1, min_probability=0.85)
    assert captions(store)["unsure"]["missing_reason"] == NO_ROOM
    captioned(store, captioner, 3, language="en", min_probability=0.85)
    assert captions(store)["unsure"]["missing_reason"] == NO_WORDS


def test_a_caption_leaves_out_what_is_least_sure_if_the_length_does_not_do_for_all(
    store: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    ingest(store, {"product_id": "a", "image": str(images["红色"])})
    tag(store, a=({"colour=red": 0.95}, 0.99))
    captioned(store, captioner)
    assert captions(store)["a"]["caption"] == "1-3岁红色"
    captioned(store, captioner, 1, length=4)
    assert captions(store)["a"]["stated"] == ["child_age=1-3y"]


def test_a_category_has_a_style_of_its_own() -> None:
    options = CaptionOptions(category_styles={"toys": "lively", "toys>blocks": "plain"})
    chosen = [options.choose_style(one) for one in ("toys>plush", "toys>blocks", "toyshop", None)]
    assert chosen == ["lively", "plain", "plain", "plain"]


def test_a_second_run_writes_nothing_and_an_unusable_image_is_counted_with_its_reason(
    store: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    ingest(
        store,
        {"product_id": "a", "title": "红色", "image": str(images["红色"])},
        {"product_id": "b", "title": "蓝色", "image": str(store.file.parent / "gone.png")},
        {"product_id": "c", "title": "蓝色", "image": None},
    )
    tag(store, **dict.fromkeys("abc", ({"colour=red": 0.97}, None)))
    first = captioned(store, captioner)
    assert (first.written, first.without_image, first.unusable) == (1, 1, {MISSING: 1})
    again = captioned(store, captioner)
    assert (again.written, again.known) == (0, 1)
    assert list(captions(store)) == ["a"]


def test_a_corrected_image_and_changed_tags_are_captioned_again(
    shop: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    captioned(shop, captioner)
    corrected = [
        {"product_id": "红色", "title": "帽子", "image": images["蓝色"].read_bytes()},  # other bytes at the same time
        {"product_id": "绿色", "title": "帽", "image": images["绿色"].read_bytes()},  # the same image
    ]
    ingest_products(shop, write_products(shop, *corrected), NOW + timedelta(days=1), partial=True)
    again = captioned(shop, captioner, 2)
    assert (again.written, again.known) == (1, 3)
    assert captioned(shop, captioner, 3).written == 0
    tag(shop, day=4, 黑色=({"colour=blue": 0.99}, None))
    assert captioned(shop, captioner, 5).written == 1
    assert captions(shop)["黑色"]["stated"] == ["colour=blue"]
    assert captioned(shop, captioner, 6, seed=1).written == 4  # another captioner version
    assert captioned(shop, captioner, 7).written == 4  # and back
    assert captioned(shop, captioner, 8, recompute=True).written == 4


def test_a_corrected_brand_is_captioned_again(shop: Settings, captioner: Path, images: dict[str, Path]) -> None:
    captioned(shop, captioner)
    rows = [{"product_id": name, "title": "帽子", "image": str(images[name])} for name in ("红色", "蓝色")]
    ingest_products(
        shop, write_products(shop, rows[0] | {"brand": "Bolt"}, rows[1]), NOW + timedelta(days=1), partial=True
    )
    assert captioned(shop, captioner, 2).written == 1
    assert captioned(shop, captioner, 3).written == 0


def test_a_store_without_tags_and_a_checkpoint_without_a_language_head_are_refused(
    store: Settings, captioner: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    ingest(store, {"product_id": "红色", "image": str(images["红色"])})
    with pytest.raises(VitrineError, match="run `produce tags`"):
        captioned(store, captioner)
    tag(store, 红色=({"colour=red": 0.97}, None))
    checkpoints.clip(tmp_path / "clip")
    with pytest.raises(VitrineError, match="no language head; train one with `produce encoder --objectives"):
        captioned(store, tmp_path / "clip")


def test_feast_retrieves_captions_offline_and_online_and_forget_reaches_them(
    tmp_path: Path, captioner: Path, images: dict[str, Path]
) -> None:
    store = configure(tmp_path)
    ingest(store, *({"product_id": name, "image": str(images[name])} for name in ("红色", "蓝色")))
    tag_colours(store)
    version = captioned(store, captioner).encoder_version
    feast = open_feature_store(store)
    feast.apply([definitions.product, definitions.product_caption, definitions.captions])
    feast.materialize_incremental(NOW + timedelta(days=1))
    service = feast.get_feature_service("captions")

    def fetch() -> dict[str, list]:
        rows = [{"product_id": "红色"}, {"product_id": "蓝色"}]
        return feast.get_online_features(service, rows).to_dict()

    found = fetch()
    assert found["caption"] == ["红色", "蓝色"]
    assert (found["stated"][1], set(found["encoder_version"])) == (["colour=blue"], {version})
    entities = pd.DataFrame({"product_id": ["红色"], "event_timestamp": [NOW + timedelta(days=1)]})
    offline = feast.get_historical_features(entities, service).to_df()
    assert (offline["caption"][0], list(offline["stated"][0])) == ("红色", ["colour=red"])
    assert offline["encoder_version"][0] == version
    summary = maintenance.forget(store, products=["红色"], users=[])
    assert summary.offline["product_caption"] == summary.online["product_caption"] == 1
    assert fetch()["caption"] == [None, "蓝色"]


def test_training_again_without_a_language_head_removes_the_old_head_and_held_out_file(
    images: dict[str, Path], tmp_path: Path
) -> None:
    shop = pa.Table.from_pylist(
        [
            {"product_id": name, "title": f"{name}连衣裙", "image": str(file), "category": None, "brand": None}
            | {"price": None, "updated_at": NOW}
            for name, file in images.items()
        ]
    )
    pq.write_table(shop, tmp_path / "products.parquet")
    out = tmp_path / "encoder"

    def train_again(*objectives: str, held_out: pa.Table | None = None) -> None:
        recipe = Recipe(objectives=objectives, batch=2)
        options = {"pairs_seen": 4, "seed": 0, "progress": lambda *_: None, "recipe": recipe}
        assert train_encoder(tmp_path, out, held_out=held_out, **options) is not None

    train_again("contrastive", "language", held_out=shop.slice(0, 1))
    language.load_head(out)
    assert (out / HELD_OUT).exists()
    train_again("contrastive")
    assert not (out / HELD_OUT).exists()
    with pytest.raises(VitrineError, match="no language head"):
        language.load_head(out)


def test_detokenize_puts_spaces_between_latin_words_only() -> None:
    titles = ["red dress 新款", "blue dress 新款", "reddish dress"] * 20
    tokenizer = train_tokenizer(titles)
    begins = find_word_beginnings(tokenizer, titles)
    assert begins is not None
    for title in ("red dress新款", "blue dress", "reddish dress"):
        assert detokenize(tokenizer, tokenizer(title)["input_ids"], begins) == title
