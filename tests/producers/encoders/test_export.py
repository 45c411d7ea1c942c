"""Exported towers: they give torch's vectors for a batch of any size, and one that does not is refused."""

import builtins
import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sentencepiece
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import SiglipTokenizer
from typer.testing import CliRunner

from feature_repo.errors import CorruptDataError, InvalidInputError, NotFoundError, UsageError, VitrineError
from feature_repo.exported.encoder import open_encoder
from feature_repo.images.decoding import UnusableImageError
from producers.cli import app
from producers.encoders import load, tiny_clip, towers
from producers.encoders.tokenizer_files import render_tokenizer
from producers.learning import export
from producers.learning.export import export_encoder
from tests.producers.encoders import checkpoints

onnxruntime = pytest.importorskip("onnxruntime")
TITLES = ["红", "红色连衣裙", "男童鞋红色女婴儿"]


def default_encoder(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_clip.train_tokenizer(TITLES * 5)
    tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)).eval(), tokenizer, folder)


FAMILIES = {
    "small": default_encoder,
    "clip": checkpoints.clip,
    "chinese_clip": checkpoints.chinese_clip,
    "siglip": checkpoints.siglip,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a folder with `encoder` and its export `out`, created once per family."""

    @cache
    def folder(family: str) -> Path:
        root = tmp_path_factory.mktemp(family)
        FAMILIES[family](root / "encoder")
        message = export_encoder(str(root / "encoder"), root / "out", format="onnx", data=None, seed=0)
        assert message.count("cosine to torch") == 4
        return root

    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_both_towers_give_the_unit_vectors_of_torch_for_a_batch_of_any_size(
    family: str, exported: Callable[[str], Path]
) -> None:
    root = exported(family)
    encoder: Any = load(str(root / "encoder"), device="cpu")
    noise = np.random.default_rng(1).integers(0, 256, (5, encoder.geometry.height, encoder.geometry.width, 3), np.uint8)
    padding = {"padding": "max_length", "max_length": encoder.text_length} if family == "siglip" else {"padding": True}
    for batch in (1, 3):
        actual = run(root / "out/image_tower/1/model.onnx", {"pixels": noise[:batch]})
        np.testing.assert_allclose(actual, encoder.encode_pixels(noise[:batch]), atol=1e-4)
        tokens = dict(encoder.tokenizer(TITLES[:batch], return_tensors="np", **padding))
        inputs_by_name = {
            name: tokens[name] for name in ("input_ids", "attention_mask")[: 1 if family == "siglip" else 2]
        }
        actual = run(root / "out/text_tower/1/model.onnx", inputs_by_name)
        np.testing.assert_allclose(actual, encoder.encode_texts(TITLES[:batch]), atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reader_without_torch_gets_the_vectors_of_the_encoder(
    family: str, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    root = exported(family)
    encoder: Any = load(str(root / "encoder"), device="cpu")
    reader = open_encoder(root / "out")
    texts = [*TITLES, "", "红" * 500, "unknown words"]
    np.testing.assert_allclose(reader.encode_texts(texts), encoder.encode_texts(texts), atol=1e-4)
    assert reader.encode_texts([]).shape == (0, encoder.dim)
    assert (reader.knows("红色"), reader.knows("\u16a0")) == (True, False)
    noise = np.random.default_rng(1).integers(0, 256, (90, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    expected = encoder.encode_images([picture])
    for source in (tmp_path / "a.png", (tmp_path / "a.png").read_bytes()):
        np.testing.assert_allclose(reader.encode_pictures([source]), expected, atol=1e-4)
    with pytest.raises(UnusableImageError, match="not an image"):
        reader.encode_pictures([b"not a picture"])


def test_an_encoder_whose_pictures_need_more_than_a_cut_is_exported_without_them(tmp_path: Path) -> None:
    checkpoints.siglip2(tmp_path / "siglip2")
    message = export_encoder(str(tmp_path / "siglip2"), tmp_path / "out", format="onnx", data=None, seed=0)
    assert "no image tower: the encoder's image processor does more than resize and crop" in message
    assert not (tmp_path / "out/image_tower").exists()
    reader = open_encoder(tmp_path / "out")
    expected = load(str(tmp_path / "siglip2"), device="cpu").encode_texts(TITLES)
    np.testing.assert_allclose(reader.encode_texts(TITLES), expected, atol=1e-4)
    with pytest.raises(InvalidInputError, match="encodes no pictures: the encoder's image processor does more"):
        reader.encode_pictures([b"anything"])


def test_a_sentence_encoder_is_exported_with_its_prompt_and_pooling(tmp_path: Path) -> None:
    checkpoints.bert(tmp_path / "bert")
    parts = [
        modules.Transformer(str(tmp_path / "bert")),
        modules.Pooling(16, pooling_mode="mean"),
        modules.Dense(16, 8),
    ]
    prompts = {"title": "红"}
    SentenceTransformer(modules=parts, device="cpu", prompts=prompts, default_prompt_name="title").save(
        str(tmp_path / "encoder")
    )
    export_encoder(str(tmp_path / "encoder"), tmp_path / "out", format="onnx", data=None, seed=0)
    reader = open_encoder(tmp_path / "out")
    expected = load(str(tmp_path / "encoder"), device="cpu").encode_texts(TITLES)
    np.testing.assert_allclose(reader.encode_texts(TITLES), expected, atol=1e-4)
    assert not reader.has_images


def test_the_sentencepiece_of_siglip_is_exported(tmp_path: Path) -> None:
    checkpoints.siglip(tmp_path / "encoder")
    titles = ["red dress for girls", "blue pushchair, folding!", "红色连衣裙 女童", "奶瓶 240ml"]
    (tmp_path / "titles.txt").write_text("\n".join(titles * 40))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "titles.txt"),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=50,
        unk_id=2,
        bos_id=-1,
        eos_id=1,
        pad_id=0,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "encoder" / name).unlink()
    SiglipTokenizer(str(tmp_path / "spiece.model"), model_max_length=24).save_pretrained(tmp_path / "encoder")
    export_encoder(str(tmp_path / "encoder"), tmp_path / "out", format="onnx", data=None, seed=0)
    texts = [*titles, "Red DRESS (new)!", "  two  blanks ", "ＦＵＬＬ　ｗｉｄｔｈ ▁odd", "∑ unknown", "", "red " * 40]
    expected = load(str(tmp_path / "encoder"), device="cpu").encode_texts(texts)
    np.testing.assert_allclose(open_encoder(tmp_path / "out").encode_texts(texts), expected, atol=1e-4)


def test_a_tokenizer_that_exists_in_python_only_is_refused_with_the_reason() -> None:
    class OwnTokenizer:
        backend_tokenizer = None

    with pytest.raises(InvalidInputError, match="OwnTokenizer is written in Python and cannot be converted"):
        render_tokenizer(OwnTokenizer(), 10)


def test_an_export_whose_tokenizer_gives_other_ids_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.clip(tmp_path / "encoder")
    original = export.render_tokenizer

    def without_end(*given: Any) -> str:
        content = json.loads(original(*given))
        content["post_processor"] = None
        return json.dumps(content)

    monkeypatch.setattr(export, "render_tokenizer", without_end)
    with pytest.raises(VitrineError, match="titles: a reader of the export gets other vectors than the encoder"):
        export_encoder(str(tmp_path / "encoder"), tmp_path / "out", format="onnx", data=None, seed=0)
    assert not (tmp_path / "out").exists()


def test_a_damaged_or_foreign_folder_is_refused_with_the_command(
    exported: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=r"no encoder\.json; run: produce export"):
        open_encoder(tmp_path)
    shutil.copytree(exported("clip") / "out", tmp_path / "out")
    (tmp_path / "out/text_tower/1/model.onnx").write_bytes(b"cut short")
    with pytest.raises(CorruptDataError, match=r"text_tower/1/model\.onnx: not readable.*produce export"):
        open_encoder(tmp_path / "out").encode_texts(["红"])
    (tmp_path / "out/tokenizer.json").unlink()
    with pytest.raises(CorruptDataError, match=r"tokenizer\.json"):
        open_encoder(tmp_path / "out")
    (tmp_path / "out/encoder.json").write_text("{}")
    with pytest.raises(NotFoundError, match="written by another version"):
        open_encoder(tmp_path / "out")


def run(file: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    (vectors,) = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(["vectors"], inputs)
    return vectors


def test_the_repository_declares_the_inputs_and_outputs_of_the_models(exported: Callable[[str], Path]) -> None:
    out = exported("clip") / "out"
    for tower in ("image_tower", "text_tower"):
        config = (out / tower / "config.pbtxt").read_text()
        session = onnxruntime.InferenceSession(str(out / tower / "1/model.onnx"), providers=["CPUExecutionProvider"])
        named = re.findall(r'\{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[([-\d, ]+)\]', config)
        kinds = {"uint8": "UINT8", "int64": "INT64", "float": "FP32"}
        parts = [*session.get_inputs(), *session.get_outputs()]
        assert [(part.name, kinds[part.type[7:-1]]) for part in parts] == [(name, kind) for name, kind, _ in named]
        for part, (_, _, dims) in zip(parts, named, strict=True):
            written = [int(size) for size in dims.split(", ")]
            # Not every graph declares the width of its output, so it is compared with the known width.
            known = [-1 if isinstance(size, str) else size for size in part.shape[1:]]
            assert written == known or (part.name == "vectors" and written == [12])
        assert f'name: "{tower}"' in config
        assert "dynamic_batching" in config
    script = out / "build_tensorrt.sh"
    assert script.stat().st_mode & 0o100
    assert "--maxShapes=input_ids:64x24,attention_mask:64x24" in script.read_text()


def test_the_towers_are_checked_with_images_and_titles_of_the_data(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path / "encoder")
    (tmp_path / "shop").mkdir()
    Image.new("RGB", (40, 60), "red").save(tmp_path / "shop/a.jpg")
    table = pa.table({"title": [*TITLES, None], "image": ["a.jpg", None, "gone.jpg", "a.jpg"]})
    pq.write_table(table, tmp_path / "shop/products.parquet")
    message = export_encoder(str(tmp_path / "encoder"), tmp_path / "out", format="onnx", data=tmp_path / "shop", seed=0)
    assert [int(n) for n in re.findall(r"on (\d+) probes", message)] == [2, 3, 3, 2]


def test_a_tower_that_differs_from_torch_is_refused_and_leaves_an_earlier_export_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.clip(tmp_path / "encoder")
    earlier = tmp_path / "out/image_tower/1/model.onnx"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"earlier")
    # Export other weights than the check computes with.
    original = towers.torch.onnx.export

    def perturbed(tower: towers.Tower, *rest: Any, **options: Any) -> None:
        weight = tower.model.text_projection.weight
        with torch.no_grad():
            weight[0] *= -1
        original(tower, *rest, **options)
        with torch.no_grad():
            weight[0] *= -1

    monkeypatch.setattr(towers.torch.onnx, "export", perturbed)
    arguments = ["export", "--encoder", str(tmp_path / "encoder"), "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, arguments).exception
    assert isinstance(refused, VitrineError)  # exit code 1
    assert str(refused).startswith("text_tower: its vectors differ from torch's")
    assert earlier.read_bytes() == b"earlier"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["encoder", "out"]


def test_without_the_extra_the_error_has_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'", name=name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VitrineError, match=r"onnxruntime is not installed.*pip install 'vitrine\[export\]'"):
        export_encoder("nowhere", tmp_path / "out", format="onnx", data=None, seed=0)


def test_unsupported_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected onnx"):
        export_encoder("nowhere", tmp_path / "out", format="coreml", data=None, seed=0)


def test_a_folder_with_other_files_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(VitrineError, match="not an export"):
        export_encoder("nowhere", tmp_path, format="onnx", data=None, seed=0)
    assert (tmp_path / "notes.txt").read_text() == "mine"
