"""Lines written from pictures, and the report on them, on a shop of four colours."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sacrebleu.metrics import BLEU

from consumers.captions import report
from feature_repo import vocabulary
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.images import MISSING
from feature_repo.offline import delta
from producers.captions.run import CaptioningSummary, caption_catalogue
from producers.encoders.tiny_clip import train_tokenizer
from producers.encoders.train import train
from producers.encoders.training import language
from producers.encoders.training.cross_attention import CrossAttentionDecoder
from producers.encoders.training.language import LanguageHead, detokenize, find_word_beginnings
from producers.encoders.training.recipe import Recipe
from producers.learning.encoder import HELD_OUT, train_encoder
from tests.producers.catalogue.shop import ingest, open_deployment
from tests.producers.encoders import checkpoints

NOW = datetime(2026, 6, 1, tzinfo=UTC)
COLOURS = {"红色": (220, 30, 30), "绿色": (30, 180, 60), "蓝色": (40, 60, 220), "黑色": (15, 15, 15)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for name, rgb in COLOURS.items():
        Image.new("RGB", (40, 40), rgb).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in COLOURS}


@pytest.fixture(scope="module")
def captioner(pictures: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose language head has seen 64 titles that name their picture's colour."""
    folder = tmp_path_factory.mktemp("encoders") / "small"
    names = [list(COLOURS)[number % len(COLOURS)] for number in range(64)]
    titles = [f"{name}连衣裙" if number % 3 else f"宝宝{name}连衣裙" for number, name in enumerate(names)]
    train(
        titles,
        [pictures[name] for name in names],
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


def captioned(store: Settings, encoder: Path) -> CaptioningSummary:
    return caption_catalogue(store, str(encoder), now=NOW, progress=lambda *_: None)


def captions(store: Settings) -> dict[str, dict]:
    return {row["product_id"]: row for row in delta.read(store.table("product_caption")).to_pylist()}


def test_a_line_names_what_the_picture_shows_whatever_the_title_says(
    store: Settings, captioner: Path, pictures: dict[str, Path]
) -> None:
    products = [{"product_id": name, "title": "绿色帽子", "image": str(file)} for name, file in pictures.items()]
    ingest(store, *products)
    done = captioned(store, captioner)
    assert (done.written, done.known) == (4, 0)
    for name, row in captions(store).items():
        assert name in row["caption"]
        assert row["captioner_version"] == done.captioner_version
        assert row["event_timestamp"] < row["created_timestamp"] == NOW


def test_a_second_run_writes_nothing_and_an_unusable_picture_is_told_with_its_reason(
    store: Settings, captioner: Path, pictures: dict[str, Path]
) -> None:
    ingest(
        store,
        {"product_id": "a", "title": "红色", "image": str(pictures["红色"])},
        {"product_id": "b", "title": "蓝色", "image": str(store.file.parent / "gone.png")},
        {"product_id": "c", "title": "蓝色", "image": None},
    )
    first = captioned(store, captioner)
    assert (first.written, first.without_picture, first.unusable) == (1, 1, {MISSING: 1})
    again = captioned(store, captioner)
    assert (again.written, again.known) == (0, 1)
    assert list(captions(store)) == ["a"]


def test_a_checkpoint_without_a_language_head_is_refused_in_one_line(store: Settings, tmp_path: Path) -> None:
    checkpoints.clip(tmp_path / "clip")
    ingest(store, {"product_id": "a", "title": "红色", "image": None})
    with pytest.raises(VitrineError, match="no language head; train one with `produce encoder --objectives"):
        captioned(store, tmp_path / "clip")


def test_an_encoder_trained_again_without_a_head_keeps_neither_the_former_head_nor_its_held_out(
    pictures: dict[str, Path], tmp_path: Path
) -> None:
    shop = pa.Table.from_pylist(
        [
            {"product_id": name, "title": f"{name}连衣裙", "image": str(file), "category": None, "brand": None}
            | {"price": None, "updated_at": NOW}
            for name, file in pictures.items()
        ]
    )
    pq.write_table(shop, tmp_path / "products.parquet")
    out = tmp_path / "encoder"

    def learnt(*objectives: str, held_out: pa.Table | None = None) -> None:
        recipe = Recipe(objectives=objectives, batch=2)
        options = {"pairs_seen": 4, "seed": 0, "progress": lambda *_: None, "recipe": recipe}
        assert train_encoder(tmp_path, out, held_out=held_out, **options) is not None

    learnt("contrastive", "language", held_out=shop.slice(0, 1))
    language.load_head(out)
    assert (out / HELD_OUT).exists()
    learnt("contrastive")
    assert not (out / HELD_OUT).exists()
    with pytest.raises(VitrineError, match="no language head"):
        language.load_head(out)


def test_no_line_has_a_pair_of_words_twice() -> None:
    torch.manual_seed(0)
    head = LanguageHead(CrossAttentionDecoder(vocabulary=12, length=30, image_width=8), start=0, end=1)
    for line in head.generate(torch.randn(16, 3, 8)):
        pairs = list(pairwise(line))
        assert len(pairs) == len(set(pairs))
        assert not {0, 1} & set(line)


def test_latin_words_are_spelled_apart_and_chinese_runs_on() -> None:
    titles = ["red dress 新款", "blue dress 新款", "reddish dress"] * 20
    tokenizer = train_tokenizer(titles)
    begins = find_word_beginnings(tokenizer, titles)
    assert begins is not None
    for title in ("red dress新款", "blue dress", "reddish dress"):
        assert detokenize(tokenizer, tokenizer(title)["input_ids"], begins) == title


@pytest.fixture
def judged(store: Settings, tmp_path: Path) -> Settings:
    """Three captions of known truth."""
    ingest(
        store,
        {"product_id": "a", "title": "新款红色裙子1-3岁", "image": None},
        {"product_id": "b", "title": "蓝色裙子", "image": None},
        {"product_id": "c", "title": "蓝色红色帽子", "image": None},
    )
    catalogue = delta.read(store.table("product_catalogue")).sort_by("product_id")
    lines = ["红色裙子1-3岁", "红色裙子", "帽子"]
    made = {"caption": lines, "captioner_version": ["small@1"] * 3, "created_timestamp": [NOW] * 3}
    rows = catalogue.select(["product_id", "event_timestamp"])
    for name, values in made.items():
        rows = rows.append_column(name, pa.array(values, pa.timestamp("us", "UTC") if name[0:2] == "cr" else None))
    delta.append(store.table("product_caption"), rows)
    truth = tmp_path / "truth"
    truth.mkdir()
    pq.write_table(
        pa.table(
            {
                "product_id": ["a", "b", "c"],
                "colour": ["red", "blue", "blue"],
                "category": ["dress", "dress", "hat"],
                "child_age": ["1-3y", "1-3y", "0-6m"],
            }
        ),
        truth / "products.parquet",
    )
    spelled = {
        "colour": {"red": "红色", "blue": "蓝色"},
        "category": {"dress": "裙子", "hat": "帽子"},
        "child_age": {"1-3y": "1-3岁", "0-6m": "新生儿"},
    }
    rows = [
        {"attribute": attribute, "value": value, "word": word}
        for attribute, values in spelled.items()
        for value, word in values.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), truth / vocabulary.FILE)
    return store


def test_the_report_counts_what_lines_name_and_whether_it_is_so(judged: Settings, tmp_path: Path) -> None:
    made = report.evaluate_captions(judged, held_out=None, truth=tmp_path / "truth", seed=0)
    found = {(row.attribute, row.lines): (row.names, row.true) for row in made.truthfulness}
    assert found["colour", "captions"] == pytest.approx((2 / 3, 1 / 2))
    assert found["colour", "titles"] == pytest.approx((1, 2 / 3))  # c names two colours: one of them is not so
    assert found["category", "captions"] == pytest.approx((1, 1))
    assert found["child_age", "captions"] == pytest.approx((1 / 3, 1))
    assert all(row.ci95[0] <= row.true <= row.ci95[1] for row in made.truthfulness)
    titles = ["新款红色裙子1-3岁", "蓝色裙子", "蓝色红色帽子"]
    own = BLEU(tokenize="zh").corpus_score(["红色裙子1-3岁", "红色裙子", "帽子"], [titles]).score
    assert made.bleu4 == pytest.approx(own)
    assert json.loads(report.to_json(made))["products"] == 3


def test_only_held_out_products_are_judged_where_they_are_named(judged: Settings, tmp_path: Path) -> None:
    pq.write_table(pa.table({"product_id": ["c"]}), tmp_path / "held_out.parquet")
    made = report.evaluate_captions(judged, held_out=tmp_path / "held_out.parquet", truth=tmp_path / "truth", seed=0)
    assert made.products == 1
    colour = next(row for row in made.truthfulness if (row.attribute, row.lines) == ("colour", "captions"))
    assert colour.names == 0
    assert np.isnan(colour.true)
    assert json.loads(report.to_json(made))["truthfulness"][0]["true"] is None


def test_without_captions_the_report_says_what_to_run(store: Settings) -> None:
    with pytest.raises(VitrineError, match="product_caption"):
        report.evaluate_captions(store, held_out=None, truth=None, seed=0)


def test_a_word_within_a_longer_one_does_not_count_and_latin_words_count_whole() -> None:
    ages = {"toddler": ["幼儿", "2T"], "preschool": ["幼儿园", "kid"]}
    assert vocabulary.find_values("幼儿园新款", ages) == {"preschool"}
    assert vocabulary.find_values("幼儿园幼儿", ages) == {"preschool", "toddler"}
    assert vocabulary.find_values("kids 2t", ages) == {"toddler"}
