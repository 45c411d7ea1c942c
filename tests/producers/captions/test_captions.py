"""`produce captions` and the language head, on a shop of four colours."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from feature_repo import schema
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.image_decoding import MISSING
from feature_repo.offline import delta
from producers.captions.run import CaptioningSummary, caption_catalogue
from producers.catalogue.ingest import ingest_products
from producers.encoders.tiny_clip import train_tokenizer
from producers.encoders.train import train
from producers.encoders.training import language
from producers.encoders.training.cross_attention import CrossAttentionDecoder
from producers.encoders.training.language import LanguageHead, detokenize, find_word_beginnings
from producers.encoders.training.recipe import Recipe
from producers.learning.encoder import HELD_OUT, train_encoder
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


@pytest.fixture
def store(tmp_path: Path) -> Settings:
    return open_deployment(tmp_path)


def captioned(store: Settings, encoder: Path, day: int = 0, recompute: bool = False) -> CaptioningSummary:
    now = NOW + timedelta(days=day)
    return caption_catalogue(store, str(encoder), recompute=recompute, now=now, progress=lambda *_: None)


def captions(store: Settings) -> dict[str, dict]:
    return {row["product_id"]: row for row in delta.read(store.table("product_caption")).to_pylist()}


def test_a_caption_names_what_the_image_shows_and_not_what_the_title_says(
    store: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    products = [{"product_id": name, "title": "绿色帽子", "image": str(file)} for name, file in images.items()]
    ingest(store, *products)
    summary = captioned(store, captioner)
    assert (summary.written, summary.known) == (4, 0)
    for name, row in captions(store).items():
        assert name in row["caption"]
        assert row["captioner_version"] == summary.captioner_version
        assert row["event_timestamp"] < row["created_timestamp"] == NOW


def test_a_second_run_writes_nothing_and_an_unusable_image_is_counted_with_its_reason(
    store: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    ingest(
        store,
        {"product_id": "a", "title": "红色", "image": str(images["红色"])},
        {"product_id": "b", "title": "蓝色", "image": str(store.file.parent / "gone.png")},
        {"product_id": "c", "title": "蓝色", "image": None},
    )
    first = captioned(store, captioner)
    assert (first.written, first.without_image, first.unusable) == (1, 1, {MISSING: 1})
    again = captioned(store, captioner)
    assert (again.written, again.known) == (0, 1)
    assert list(captions(store)) == ["a"]


def test_a_corrected_image_is_captioned_again_and_only_the_newest_row_of_a_version_counts(
    store: Settings, captioner: Path, images: dict[str, Path]
) -> None:
    ingest(store, *({"product_id": name, "title": "帽子", "image": str(file)} for name, file in images.items()))
    captioned(store, captioner)
    corrected = [
        {"product_id": "红色", "title": "帽子", "image": images["蓝色"].read_bytes()},  # other bytes at the same time
        {"product_id": "绿色", "title": "帽", "image": images["绿色"].read_bytes()},  # the same image
    ]
    path = write_products(store, *corrected)
    ingest_products(store, path, NOW + timedelta(days=1), partial=True)
    again = captioned(store, captioner, 2)
    assert (again.written, again.known) == (1, 3)
    assert "蓝色" in next(
        row["caption"]
        for row in delta.read(store.table("product_caption")).sort_by([("created_timestamp", "descending")]).to_pylist()
        if row["product_id"] == "红色"
    )
    assert captioned(store, captioner, 3).written == 0
    delta.append(  # a row of another captioner is the newest now
        store.table("product_caption"),
        pa.Table.from_pylist(
            [captions(store)["黑色"] | {"captioner_version": "x", "created_timestamp": NOW + timedelta(days=4)}],
            schema.PRODUCT_CAPTION,
        ),
    )
    assert captioned(store, captioner, 5).written == 1
    assert captioned(store, captioner, 6, recompute=True).written == 4


def test_a_checkpoint_without_a_language_head_is_refused(store: Settings, tmp_path: Path) -> None:
    checkpoints.clip(tmp_path / "clip")
    ingest(store, {"product_id": "a", "title": "红色", "image": None})
    with pytest.raises(VitrineError, match="no language head; train one with `produce encoder --objectives"):
        captioned(store, tmp_path / "clip")


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


def test_a_generated_line_repeats_no_pair_of_tokens() -> None:
    torch.manual_seed(0)
    head = LanguageHead(CrossAttentionDecoder(vocabulary=12, length=30, image_width=8), start=0, end=1)
    for line in head.generate(torch.randn(16, 3, 8)):
        pairs = list(pairwise(line))
        assert len(pairs) == len(set(pairs))
        assert not {0, 1} & set(line)


def test_detokenize_puts_spaces_between_latin_words_only() -> None:
    titles = ["red dress 新款", "blue dress 新款", "reddish dress"] * 20
    tokenizer = train_tokenizer(titles)
    begins = find_word_beginnings(tokenizer, titles)
    assert begins is not None
    for title in ("red dress新款", "blue dress", "reddish dress"):
        assert detokenize(tokenizer, tokenizer(title)["input_ids"], begins) == title
