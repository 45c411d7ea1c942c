"""`produce encoder --task` as a user calls it: what it writes, what it refuses, and what it says."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from feature_repo.errors import InvalidInputError, NotFoundError, VitrineError
from producers.cli import app
from producers.encoders import load, tiny_clip
from producers.encoders.assembled.assemble import open_parts, save_checkpoint
from producers.encoders.captioner import open_captioner
from producers.encoders.checkpoint_version import read_training_products
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.recall import encode_pairs
from producers.encoders.training.cross_attention import CrossAttentionDecoder
from producers.encoders.training.language import LanguageHead
from producers.encoders.tuning.measures import measure_same_recall
from producers.encoders.tuning.tunable import ProjectedEncoder, open_tunable, to_float
from producers.index import texture
from producers.learning import tuning_inputs
from tests.producers.encoders import checkpoints

PRODUCTS, MEMBERS = 320, 4
HEADER = "pair_id,product_id_l,product_id_r,label\n"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of 80 designs, each with its own stripes and colour, and an encoder that knows nothing."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(PRODUCTS):
        design = number // MEMBERS
        y, x = np.mgrid[:48, :48]
        angle, period = np.pi * (design % 8) / 8, 5 + design // 8 % 5
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + rng.random() * 6)
        colour = np.array([(200, 60, 60), (60, 60, 200)][design // 40])
        pixels = colour + 50 * wave[..., None] + rng.normal(size=(48, 48, 3)) * 10
        stream = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, "PNG")
        title = f"{'红色' if design < 40 else '蓝色'} 条纹{design % 8} {rng.choice(['包邮', '新款', '正品'])}{number}"
        rows.append({"product_id": f"p{number}", "title": title, "image": stream.getvalue(), "design": f"d{design}"})
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.drop_columns(["design"]), folder / "products.parquet")
    pq.write_table(
        pa.table({"product_id": table["product_id"], "design_id": table["design"]}), folder / "designs.parquet"
    )
    torch.manual_seed(0)
    tokenizer = tiny_clip.train_tokenizer(table["title"].to_pylist())
    tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)), tokenizer, folder / "small")
    return folder


def tune(shop: Path, out: Path, *options: str) -> str:
    arguments = ["encoder", "--data", str(shop), "--from", str(shop / "small"), "--output", str(out)]
    outputs = ("--tower-outputs", str(shop / "outputs"), "--minutes", "0.1")
    result = CliRunner().invoke(app, [*arguments, *outputs, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def encode(shop: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    products = pq.read_table(shop / "products.parquet")
    with open_decoding_pool(1) as pool:
        image, text, _ = encode_pairs(
            load(str(folder), device="cpu"), products["title"].to_pylist(), products["image"].to_pylist(), pool
        )
    return image, text


def test_an_encoder_tuned_for_matching_finds_the_held_out_designs_better_than_before(
    shop: Path, tmp_path: Path
) -> None:
    said = tune(shop, tmp_path / "tuned", "--task", "matching", "--designs", str(shop / "designs.parquet"))
    held_out = pq.read_table(tmp_path / "tuned" / "held_out.parquet")
    assert len(held_out) == 64
    designs = pq.read_table(shop / "designs.parquet")
    names = designs.filter(pc.is_in(designs["product_id"], held_out["product_id"].combine_chunks()))["design_id"]
    assert pc.value_counts(names).field("counts").to_pylist() == [MEMBERS] * 16  # whole designs
    trained = read_training_products(tmp_path / "tuned")
    assert trained is not None
    assert not set(trained.to_pylist()) & set(held_out["product_id"].to_pylist())
    line = next(line for line in said.splitlines() if line.startswith("recall@10 of the same product, image"))
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", line))
    assert after > before + 0.05
    # The checkpoint on disk gives what the report says.
    groups = np.arange(PRODUCTS) // MEMBERS
    queries = np.array([int(name[1:]) for name in held_out["product_id"].to_pylist()])
    for folder, wanted in ((shop / "small", before), (tmp_path / "tuned", after)):
        recall = measure_same_recall(encode(shop, folder)[0], groups, queries).mean()
        assert recall == pytest.approx(wanted, abs=0.02)
    report = (tmp_path / "tuned" / "tuning.md").read_text()
    assert f"| {before:.3f} | {after:.3f} |" in report
    assert "consume proxies" in report
    assert not (tmp_path / "tuned" / "training.pt").exists()


@pytest.mark.slow
def test_an_encoder_tuned_for_sentences_learns_from_labels_and_words(shop: Path, tmp_path: Path) -> None:
    labels = [
        {"query": f"条纹{stripes}", "product_id": f"p{row}", "relevant": int(row // MEMBERS % 8 == stripes)}
        for stripes in range(8)
        for row in range(PRODUCTS)
    ]
    pq.write_table(pa.Table.from_pylist(labels), tmp_path / "labels.parquet")
    said = tune(shop, tmp_path / "tuned", "--task", "selection", "--pairs", str(tmp_path / "labels.parquet"))
    line = next(line for line in said.splitlines() if line.startswith("AP@50 of labelled sentences, image"))
    before, after = map(float, re.findall(r"([\d.]+) (?:before|after)", line))
    assert after > before + 0.05
    assert "AP@50 of words of the titles, image" in said
    assert load(str(tmp_path / "tuned"), device="cpu").version != load(str(shop / "small"), device="cpu").version


def test_texture_leaves_the_vectors_of_the_small_encoder_as_they_were(shop: Path, tmp_path: Path) -> None:
    encoder = open_tunable(str(shop / "small"), trains_small_text=True)
    assert isinstance(encoder, ProjectedEncoder)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    grey = list(pixels.astype(np.float32).mean(axis=3))
    encoder.add_texture(texture.learn_dictionary(grey), texture.NOISE, pixels)
    encoder.save(None, tmp_path / "textured")
    before, after = (load(str(folder), device="cpu") for folder in (shop / "small", tmp_path / "textured"))
    np.testing.assert_allclose(before.encode_pixels(pixels), after.encode_pixels(pixels), atol=1e-4)
    np.testing.assert_array_equal(before.encode_texts(["红色 条纹"]), after.encode_texts(["红色 条纹"]))


def test_a_tuned_encoder_keeps_its_language_head_and_writes_the_same_lines(shop: Path, tmp_path: Path) -> None:
    source, tuned = tmp_path / "source", tmp_path / "tuned"
    shutil.copytree(shop / "small", source)
    torch.manual_seed(1)
    vocabulary = len(load(str(source), device="cpu").tokenizer)
    reader = CrossAttentionDecoder(vocabulary=vocabulary, length=12, image_width=tiny_clip.VISION["hidden_sizes"][-1])
    LanguageHead(reader, start=2, end=3).save(source)
    encoder = open_tunable(str(source), trains_small_text=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    encoder.add_texture(texture.learn_dictionary(list(pixels.astype(np.float32).mean(axis=3))), texture.NOISE, pixels)
    with torch.no_grad():
        for weight in encoder.module.parameters():  # stands for a training
            weight += torch.randn_like(weight) * 0.1
    encoder.save(None, tuned)

    before, after = (open_captioner(str(folder), device="cpu") for folder in (source, tuned))
    assert before.version != after.version
    lines = [
        captioner.complete(captioner.encode_images(pixels), np.arange(8), [""] * 8) for captioner in (before, after)
    ]
    assert any(lines[0])
    assert lines[0] == lines[1]
    open_tunable(str(shop / "small"), trains_small_text=True).save(None, tuned)
    with pytest.raises(NotFoundError, match="has no language head"):
        open_captioner(str(tuned), device="cpu")  # nor does one of an earlier checkpoint stay


@pytest.mark.parametrize("kind", ["clip", "assembled"])
def test_the_heads_of_other_encoders_are_tuned_and_their_towers_stay(tmp_path: Path, kind: str) -> None:
    checkpoints.clip(tmp_path / "clip")
    if kind == "assembled":
        clip = str(tmp_path / "clip")
        parts = open_parts(["red", "blue"] * 9, image_tower=clip, text_tower=clip, head="linear", dim=16)
        save_checkpoint(parts, None, tmp_path / kind)
    encoder = open_tunable(str(tmp_path / kind), trains_small_text=True)
    geometry = encoder.geometry
    pixels = np.random.default_rng(0).integers(0, 256, (6, geometry.height, geometry.width, 3), dtype=np.uint8)
    texts = ["red", "blue red"]
    outputs = to_float(encoder.frozen.encode_pixel_outputs(pixels))
    inputs = encoder.prepare_texts(texts, encoder.frozen.encode_text_outputs(texts))
    before = load(str(tmp_path / kind), device="cpu")
    with torch.no_grad():
        np.testing.assert_allclose(encoder.encode_images(outputs), before.encode_pixels(pixels), atol=2e-3)
        np.testing.assert_allclose(encoder.encode_texts(inputs, np.arange(2)), before.encode_texts(texts), atol=2e-3)
        for weight in encoder.module.parameters():  # stands for a training
            weight += torch.randn_like(weight) * 0.1
        encoder.save(None, tmp_path / "tuned")
        after = load(str(tmp_path / "tuned"), device="cpu")
        np.testing.assert_allclose(encoder.encode_images(outputs), after.encode_pixels(pixels), atol=2e-3)
        np.testing.assert_allclose(encoder.encode_texts(inputs, np.arange(2)), after.encode_texts(texts), atol=2e-3)
    again = open_tunable(str(tmp_path / "tuned"), trains_small_text=True)
    assert again.frozen.image_fingerprint == encoder.frozen.image_fingerprint  # so kept outputs serve it, too
    assert again.version != encoder.version


def test_an_encoder_of_another_kind_is_refused(tmp_path: Path) -> None:
    checkpoints.siglip(tmp_path / "siglip")
    with pytest.raises(InvalidInputError, match="an encoder of kind 'siglip' cannot be tuned"):
        open_tunable(str(tmp_path / "siglip"), trains_small_text=False)


@pytest.mark.slow
def test_nothing_is_written_if_the_encoder_gets_no_better(tmp_path: Path, shop: Path) -> None:
    products = pq.read_table(shop / "products.parquet").slice(0, PRODUCTS)
    first = pa.array(np.arange(PRODUCTS) // MEMBERS * MEMBERS)  # all products of a design have one title and picture
    copies = products.take(first).set_column(0, "product_id", products["product_id"])
    pq.write_table(copies, tmp_path / "products.parquet")
    arguments = ["encoder", "--data", str(tmp_path), "--from", str(shop / "small"), "--task", "matching"]
    options = ["--designs", str(shop / "designs.parquet"), "--output", str(tmp_path / "out"), "--minutes", "0.1"]
    with pytest.raises(VitrineError, match=r"nothing was saved, because the encoder got no better: .* 1.000 before"):
        CliRunner().invoke(app, [*arguments, *options], catch_exceptions=False)
    assert not (tmp_path / "out").exists()


IDS = pa.chunked_array([[f"p{number}" for number in range(8)]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", "0 pairs of known products are the same"),
        ("1,p0,p1,same\n", "1 pairs of known products are the same and 0 are not"),
        ("1,p0,p1,different\n2,p1,p2,similar\n", "0 pairs of known products are the same and 2 are not"),
        ("1,p0,p1,same\n1,p0,p1,different\n", "has two answers"),
        ("1,x,p1,same\n2,p0,y,different\n", "0 pairs of known products are the same"),
        ("1,p0,p1,alike\n", "label is 'alike'"),
        ("1,p0,p0,same\n", "not two different products"),
    ],
)
def test_pairs_that_teach_nothing_are_refused_in_one_line(tmp_path: Path, rows: str, message: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(HEADER + rows)
    with pytest.raises(InvalidInputError, match=message):
        tuning_inputs.read_pair_labels(file, IDS)


def test_pairs_of_unknown_products_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(HEADER + "1,p0,p1,same\n2,p0,p3,different\n3,gone,p1,same\n4,p2,lost,different\n")
    pairs = tuning_inputs.read_pair_labels(file, IDS)
    assert (pairs.same.tolist(), pairs.different.tolist()) == ([[0, 1]], [[0, 3]])
    assert "2 of 4 rows are left out" in caplog.text
    assert "gone, lost" in caplog.text
    with pytest.raises(NotFoundError):
        tuning_inputs.read_pair_labels(tmp_path / "none.csv", IDS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": ["a"], "product_id": ["p0"]}, "relevant"),
        ({"query": ["a", "a"], "product_id": ["p0", "p1"], "relevant": [1, 2]}, "row 2: `relevant` is neither 0 nor 1"),
        ({"query": ["a", "a"], "product_id": ["p0", "p0"], "relevant": [1, 0]}, "two labels for p0"),
        ({"query": ["a", "b"], "product_id": ["p0", "p0"], "relevant": [1, 1]}, "2 labels of known products are 1"),
        ({"query": ["a"], "product_id": ["gone"], "relevant": [1]}, "0 labels of known products are 1"),
        ({"query": ["a"], "product_id": [["p0"]], "relevant": [1]}, "product_id"),
        ({"query": pa.array([], "string"), "product_id": pa.array([], "string"), "relevant": []}, "no rows|empty"),
    ],
)
def test_labelled_sentences_that_teach_nothing_are_refused_in_one_line(
    tmp_path: Path, columns: dict, message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(InvalidInputError, match=message) as error:
        tuning_inputs.read_sentence_labels(tmp_path / "labels.parquet", IDS)
    assert "\n" not in str(error.value)


def test_products_linked_by_pairs_or_designs_are_the_same_and_equal_titles_are_held_out_together() -> None:
    pairs = tuning_inputs.LabelledPairRows(np.array([[0, 1], [1, 2]]), np.array([[0, 2], [0, 5]]))
    known, units = tuning_inputs.join_products(["a", "b", "c", "a", "d", "e"], ["x", None, None, None, "x", "y"], pairs)
    assert known.groups[0] == known.groups[2] == known.groups[4]  # 0-1-2 by pairs, 0-4 by design
    assert len(set(known.groups[[0, 3, 5]].tolist())) == 3
    assert units[0] == units[3]  # equal titles
    assert known.is_complete.tolist() == [True, False, False, False, True, True]
    assert known.different.tolist() == [[0, 5]]  # 0 and 2 are linked, although labelled as different
