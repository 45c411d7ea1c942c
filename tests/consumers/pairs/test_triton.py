"""Towers behind a server of Triton's protocol: the same vectors, uint8 pixels sent, and its faults in one line."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from consumers.online import OnlineReader
from consumers.pairs.scoring import PairScorer
from consumers.serving.pairs import PairExecutor
from feature_repo.errors import EncoderMismatchError, InvalidInputError, UnavailableError
from feature_repo.exported.encoder import open_encoder
from feature_repo.serving_limits import PairLimits
from tests.consumers.pairs.kserve import ServedRepository, serve_repository
from tests.consumers.pairs.world import PairWorld
from tests.consumers.serving.running import serving

pytest.importorskip("tritonclient")
TEXTS = ["红色连衣裙", "蓝色积木", ""]


@pytest.fixture
def repository(pair_world: PairWorld) -> Iterator[ServedRepository]:
    with serve_repository(pair_world.towers) as running:
        yield running


def test_the_vectors_are_those_of_the_towers_in_this_process(
    repository: ServedRepository, pair_world: PairWorld
) -> None:
    remote = open_encoder(pair_world.towers, triton=repository.address)
    pictures: list[Path | bytes] = [pair_world.folder / f"p{number}.png" for number in range(70)]
    np.testing.assert_allclose(remote.encode_texts(TEXTS), pair_world.encoder.encode_texts(TEXTS), atol=1e-5)
    expected = pair_world.encoder.encode_pictures(pictures)
    np.testing.assert_allclose(remote.encode_pictures(pictures), expected, atol=1e-5)
    sent = [(datatype, shape) for model, _, datatype, shape in repository.received if model == "image_tower"]
    geometry = pair_world.encoder.description.geometry
    assert geometry is not None
    size = (geometry.height, geometry.width, 3)
    assert sent == [("UINT8", (64, *size)), ("UINT8", (6, *size))]


def test_several_threads_may_use_one_encoder(repository: ServedRepository, pair_world: PairWorld) -> None:
    remote = open_encoder(pair_world.towers, triton=repository.address)
    texts = [f"红色 {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(lambda text: remote.encode_texts([text])[0], texts))
    np.testing.assert_allclose(rows, pair_world.encoder.encode_texts(texts), atol=1e-5)


def test_a_server_with_another_encoder_is_refused(pair_world: PairWorld, tmp_path: Path) -> None:
    shutil.copytree(pair_world.towers, tmp_path / "other")
    config = tmp_path / "other/text_tower/config.pbtxt"
    config.write_text(config.read_text().replace(pair_world.encoder.encoder_version, "other@1"))
    with serve_repository(tmp_path / "other") as repository:
        remote = open_encoder(pair_world.towers, triton=repository.address)
        with pytest.raises(EncoderMismatchError, match="text_tower is of other@1, the export of encoder@"):
            remote.encode_texts(TEXTS)


def test_a_server_that_fails_or_is_gone_is_unavailable(repository: ServedRepository, pair_world: PairWorld) -> None:
    remote = open_encoder(pair_world.towers, triton=repository.address)
    assert len(remote.encode_texts(TEXTS)) == 3
    repository.is_broken = True
    with pytest.raises(UnavailableError, match=r"the Triton server at http.* does not answer .*out of memory"):
        remote.encode_texts(TEXTS)
    repository.is_broken = False
    assert len(remote.encode_texts(TEXTS)) == 3
    gone = open_encoder(pair_world.towers, triton="http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"the Triton server at http://127.0.0.1:9 does not answer"):
        gone.encode_texts(TEXTS)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "grpc://host:1", "http://", "http://host:1/path"])
def test_what_is_no_address_is_refused(address: str, pair_world: PairWorld) -> None:
    with pytest.raises(InvalidInputError, match="no address of a Triton server"):
        open_encoder(pair_world.towers, triton=address).encode_texts(TEXTS)


def test_pairs_are_scored_behind_triton_and_an_outage_is_503(
    repository: ServedRepository, pair_world: PairWorld, reader: OnlineReader
) -> None:
    remote = open_encoder(pair_world.towers, triton=repository.address)
    scorer = PairScorer(remote, pair_world.verifier)
    pair = {"left": {"title": "红色连衣裙 120ml"}, "right": {"title": "红色连衣裙 正品 120ml"}}
    with serving(
        reader,
        open_pairs=lambda metrics: PairExecutor(
            scorer, None, limits=PairLimits(), deadline_seconds=20.0, metrics=metrics
        ),
    ) as served:
        response = httpx.post(f"{served.http}/v1/pairs", json={"pairs": [pair]})
        assert response.status_code == 200
        assert repository.received
        repository.is_broken = True
        response = httpx.post(f"{served.http}/v1/pairs", json={"pairs": [pair]})
        assert (response.status_code, response.json()["error"]) == (503, "UNAVAILABLE")
        assert "127.0.0.1" not in response.text
        assert "the encoder's server does not answer" in response.json()["message"]
