"""An assembled encoder exported as ONNX: the same vectors, words of the shop included, and the same check."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.exported.encoder import open_encoder
from producers.encoders import load
from producers.encoders.assembled.encoder import AssembledEncoder
from producers.encoders.assembled.tokenizer import WORDS_LENGTH
from producers.encoders.tokens import tokenize
from producers.learning.export import export_encoder
from tests.producers.encoders import checkpoints
from tests.producers.encoders.assembled.test_assembled import IMAGES, TITLES, build

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    for name in ("clip", "siglip"):
        checkpoints.IMAGE_TEXT[name](folder / name)
    (folder / "shop").mkdir()
    pq.write_table(pa.table({"title": TITLES[:20], "image": IMAGES[:20]}), folder / "shop" / "products.parquet")
    return folder


@pytest.mark.parametrize("text", ["clip", "siglip", "none"])
def test_both_towers_give_the_vectors_of_the_encoder(sources: Path, text: str) -> None:
    build(sources, sources / f"with-{text}", "clip", text)
    out = sources / f"out-{text}"
    message = export_encoder(str(sources / f"with-{text}"), out, format="onnx", data=sources / "shop", seed=0)
    assert re.findall(r"on (\d+) probes", message) == ["20"] * 4
    assert "48 ids of the shop's words" in (out / "README.md").read_text()
    encoder = load(str(sources / f"with-{text}"), device="cpu")
    assert isinstance(encoder, AssembledEncoder)
    assert encoder.geometry is not None
    pixels = np.random.default_rng(0).integers(
        0, 256, (3, encoder.geometry.height, encoder.geometry.width, 3), np.uint8
    )
    np.testing.assert_allclose(run(out, "image_tower", {"pixels": pixels}), encoder.encode_pixels(pixels), atol=1e-4)
    titles = [*TITLES[:4], "女"]  # a short one, so that the text tower reads padding
    tokens = tokenize(encoder.tokenizer, titles, encoder.text_length)
    inputs = encoder.text_inputs(tokens, np.arange(len(titles)))
    assert inputs[0].shape[1] >= WORDS_LENGTH
    vectors = run(out, "text_tower", dict(zip(("input_ids", "attention_mask"), inputs, strict=False)))
    np.testing.assert_allclose(vectors, encoder.encode_texts(titles), atol=1e-4)
    reader = open_encoder(out)
    texts = [*titles, "", "word of no title", TITLES[0] * 300]
    np.testing.assert_allclose(reader.encode_texts(texts), encoder.encode_texts(texts), atol=1e-4)
    assert reader.knows(TITLES[0])
    assert not reader.knows("\u16a0")


def run(out: Path, tower: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(out / tower / "1/model.onnx"), providers=["CPUExecutionProvider"])
    (vectors,) = session.run(["vectors"], inputs)
    return vectors
