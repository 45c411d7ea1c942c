"""Towers for other runtimes: they are torch's, they take any batch, and one that is not torch's is refused."""

import builtins
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from feature_repo.errors import UsageError, VitrineError
from producers.cli import app
from producers.encoders import load, tiny_clip, towers
from producers.learning.export import export_encoder
from tests.producers.encoders import checkpoints

onnxruntime = pytest.importorskip("onnxruntime")
TITLES = ["红", "红色连衣裙", "男童鞋红色女婴儿"]


def the_small_one(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_clip.train_tokenizer(TITLES * 5)
    tiny_clip.save_checkpoint(tiny_clip.build_model(len(tokenizer)).eval(), tokenizer, folder)


FAMILIES = {
    "small": the_small_one,
    "clip": checkpoints.clip,
    "chinese_clip": checkpoints.chinese_clip,
    "siglip": checkpoints.siglip,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with `encoder` and its export `out`, made once for each family."""

    @cache
    def folder(family: str) -> Path:
        place = tmp_path_factory.mktemp(family)
        FAMILIES[family](place / "encoder")
        said = export_encoder(str(place / "encoder"), place / "out", format="onnx", data=None, seed=0)
        assert said.count("cosine to torch") == 2
        return place

    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_both_towers_give_torchs_unit_vectors_for_a_batch_of_any_size(
    family: str, exported: Callable[[str], Path]
) -> None:
    place = exported(family)
    encoder: Any = load(str(place / "encoder"), device="cpu")
    noise = np.random.default_rng(1).integers(0, 256, (5, encoder.geometry.height, encoder.geometry.width, 3), np.uint8)
    padding = {"padding": "max_length", "max_length": encoder.text_length} if family == "siglip" else {"padding": True}
    for batch in (1, 3):
        got = run(place / "out/image_tower/1/model.onnx", {"pixels": noise[:batch]})
        np.testing.assert_allclose(got, encoder.encode_pixels(noise[:batch]), atol=1e-4)
        tokens = dict(encoder.tokenizer(TITLES[:batch], return_tensors="np", **padding))
        asked = {name: tokens[name] for name in ("input_ids", "attention_mask")[: 1 if family == "siglip" else 2]}
        got = run(place / "out/text_tower/1/model.onnx", asked)
        np.testing.assert_allclose(got, encoder.encode_texts(TITLES[:batch]), atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


def run(file: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    (vectors,) = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(["vectors"], inputs)
    return vectors


def test_the_repository_says_what_the_models_take(exported: Callable[[str], Path]) -> None:
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
            # The output's width is not written into every graph, so it is held against what comes out elsewhere.
            known = [-1 if isinstance(size, str) else size for size in part.shape[1:]]
            assert written == known or (part.name == "vectors" and written == [12])
        assert f'name: "{tower}"' in config
        assert "dynamic_batching" in config
    script = out / "build_tensorrt.sh"
    assert script.stat().st_mode & 0o100
    assert "--maxShapes=input_ids:64x24,attention_mask:64x24" in script.read_text()


def test_the_towers_are_checked_with_the_pictures_and_titles_of_the_data(tmp_path: Path) -> None:
    checkpoints.clip(tmp_path / "encoder")
    (tmp_path / "shop").mkdir()
    Image.new("RGB", (40, 60), "red").save(tmp_path / "shop/a.jpg")
    table = pa.table({"title": [*TITLES, None], "image": ["a.jpg", None, "gone.jpg", "a.jpg"]})
    pq.write_table(table, tmp_path / "shop/products.parquet")
    said = export_encoder(str(tmp_path / "encoder"), tmp_path / "out", format="onnx", data=tmp_path / "shop", seed=0)
    assert [int(n) for n in re.findall(r"on (\d+) probes", said)] == [2, 3]


def test_a_tower_that_is_not_torchs_is_refused_by_name_and_leaves_an_earlier_export_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.clip(tmp_path / "encoder")
    earlier = tmp_path / "out/image_tower/1/model.onnx"
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"earlier")
    # The same graph with other numbers than torch computes with when it is checked.
    true = towers.torch.onnx.export

    def perturbed(tower: towers.Tower, *rest: Any, **options: Any) -> None:
        weight = tower.model.text_projection.weight
        with torch.no_grad():
            weight[0] *= -1
        true(tower, *rest, **options)
        with torch.no_grad():
            weight[0] *= -1

    monkeypatch.setattr(towers.torch.onnx, "export", perturbed)
    arguments = ["export", "--encoder", str(tmp_path / "encoder"), "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, arguments).exception
    assert isinstance(refused, VitrineError)  # exit code 1
    assert str(refused).startswith("text_tower: its vectors differ from torch's")
    assert earlier.read_bytes() == b"earlier"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["encoder", "out"]


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'", name=name)
        return true(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(VitrineError, match=r"onnxruntime is not installed.*pip install 'vitrine\[export\]'"):
        export_encoder("nowhere", tmp_path / "out", format="onnx", data=None, seed=0)


def test_other_formats_and_encoders_that_are_not_exported_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected onnx"):
        export_encoder("nowhere", tmp_path / "out", format="coreml", data=None, seed=0)
    checkpoints.siglip2(tmp_path / "siglip2")
    with pytest.raises(VitrineError, match="image processor does more"):
        export_encoder(str(tmp_path / "siglip2"), tmp_path / "out", format="onnx", data=None, seed=0)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(VitrineError, match="not an export"):
        export_encoder("nowhere", tmp_path, format="onnx", data=None, seed=0)
    assert (tmp_path / "notes.txt").read_text() == "mine"
