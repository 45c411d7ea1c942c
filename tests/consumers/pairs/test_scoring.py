"""Pairs are scored as `produce groups` scores them, whoever else is in the batch and whichever way a product comes."""

import threading
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pyarrow as pa
import pytest

from consumers.pairs.products import IndexedProductReader, KnownProduct, describe_product
from consumers.pairs.scoring import Pair, PairScorer, ScoredPair
from feature_repo.errors import EncoderMismatchError, NotFoundError, UnavailableError
from feature_repo.index.product_index import open_index
from feature_repo.index.update import append_products, gather_products
from feature_repo.pairs.verifier import REASONS
from feature_repo.server.batching import Batcher
from producers.groups.matching import score_candidates
from tests.consumers.pairs.world import PairWorld

LEFT, RIGHT = np.array([0, 0, 3, 10, 40, 7]), np.array([1, 5, 4, 80, 41, 20])


def read_pairs(world: PairWorld) -> list[Pair]:
    reader = world.open_reader()
    sides = [reader.read([f"p{row}" for row in rows]) for rows in (LEFT, RIGHT)]
    return list(zip(*sides, strict=True))


def describe_row(world: PairWorld, row: int) -> KnownProduct:
    """Return a product of the shop as if a caller had sent it."""
    stored = world.products.slice(row, 1).to_pylist()[0]
    picture = (world.folder / f"p{row}.png").read_bytes()
    facts = {name: stored[name] for name in ("title", "brand", "price", "category")}
    return describe_product(world.encoder, picture=picture, **facts)


def test_products_of_the_index_get_the_probability_of_produce_groups(pair_world: PairWorld) -> None:
    expected = score_candidates(lambda rows: pair_world.products.take(pa.array(rows)), LEFT, RIGHT, pair_world.verifier)
    scored = pair_world.open_scorer().score(read_pairs(pair_world))
    np.testing.assert_allclose([one.probability for one in scored], expected, atol=1e-5)
    assert expected.max() > 0.9 > 0.1 > expected.min()  # the pairs are worth telling apart


def test_the_same_product_sent_by_a_caller_gets_the_same_answer(pair_world: PairWorld) -> None:
    sent = [
        (describe_row(pair_world, left), describe_row(pair_world, right))
        for left, right in zip(LEFT.tolist(), RIGHT.tolist(), strict=True)
    ]
    scorer = pair_world.open_scorer()
    by_id = [one.probability for one in scorer.score(read_pairs(pair_world))]
    np.testing.assert_allclose([one.probability for one in scorer.score(sent)], by_id, atol=0.02)


def test_a_pair_has_one_answer_alone_mirrored_and_in_a_batch(pair_world: PairWorld) -> None:
    scorer, pairs = pair_world.open_scorer(), read_pairs(pair_world)
    together = scorer.score(pairs)
    for pair, expected in zip(pairs, together, strict=True):
        for actual in (*scorer.score([pair]), *scorer.score([pair[::-1]])):
            assert actual.probability == pytest.approx(expected.probability, abs=1e-5)
            np.testing.assert_allclose(actual.reasons, expected.reasons, atol=1e-3)


def test_reasons_and_vetoes_name_what_decides(pair_world: PairWorld) -> None:
    product = describe_row(pair_world, 0)
    scorer = pair_world.open_scorer()
    same = scorer.score([(product, describe_row(pair_world, 1))])[0]
    assert same.vetoes == ()
    assert np.isfinite(same.reasons).all()
    other = describe_product(pair_world.encoder, title="红色连衣裙", picture=None, facts="volume 999ml")
    vetoed = scorer.score([(product, other)])[0]
    assert (vetoed.vetoes, vetoed.probability) == (("volume",), 0)
    assert np.isneginf(vetoed.reasons[REASONS.index("measures")])


def test_a_product_with_a_picture_alone_or_a_title_alone_is_scored(pair_world: PairWorld) -> None:
    picture = (pair_world.folder / "p0.png").read_bytes()
    sides = [
        describe_product(pair_world.encoder, title=None, picture=picture),
        describe_product(pair_world.encoder, title="红色连衣裙", picture=None),
    ]
    (scored,) = pair_world.open_scorer().score([(sides[0], sides[1])])
    assert 0 <= scored.probability <= 1


def test_a_verifier_of_another_encoder_is_refused(pair_world: PairWorld) -> None:
    with pytest.raises(EncoderMismatchError, match="trained on vectors of other@1, the exported encoder is"):
        PairScorer(pair_world.encoder, replace(pair_world.verifier, encoder_version="other@1"))


def test_a_changed_index_is_seen_and_one_that_is_removed_stays_open(pair_world: PairWorld, tmp_path: Path) -> None:
    copytree(pair_world.index, tmp_path / "index")
    time = [0.0]
    version = pair_world.encoder.encoder_version
    reader = IndexedProductReader(tmp_path / "index", version, refresh_seconds=60, clock=lambda: time[0])
    index = open_index(tmp_path / "index")
    assert read_titles(reader) == [pair_world.products["title"][0].as_py(), None]
    changed = gather_products(index).take(np.array([0]))
    rows = changed.rows.set_column(changed.rows.schema.names.index("title"), "title", [["新"]])
    append_products(index, replace(changed, rows=rows))
    assert read_titles(reader)[0] != "新"
    time[0] = 61.0
    assert read_titles(reader)[0] == "新"
    rmtree(tmp_path / "index")
    time[0] = 122.0
    assert read_titles(reader)[0] == "新"
    with pytest.raises(NotFoundError):
        IndexedProductReader(tmp_path / "index", version).read(["p0"])


def read_titles(reader: IndexedProductReader) -> list[str | None]:
    return [None if product is None else product.title for product in reader.read(["p0", "nobody"])]


def test_requests_that_wait_at_the_same_time_share_a_batch(pair_world: PairWorld) -> None:
    sizes: list[int] = []
    is_busy, may_go_on = threading.Event(), threading.Event()
    scorer = pair_world.open_scorer()

    def score(pairs: list[Pair]) -> list[ScoredPair]:
        is_busy.set()
        assert may_go_on.wait(10)
        return scorer.score(pairs)

    batcher = Batcher(score, max_items=4, wait_seconds=0.05, on_batch=sizes.append)
    pairs = read_pairs(pair_world)
    expected = [one.probability for one in scorer.score(pairs)]
    answers: dict[int, float] = {}

    def ask(number: int) -> None:
        answers[number] = batcher.answer([pairs[number]])[0].probability

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    threads[0].start()
    assert is_busy.wait(10)
    for thread in threads[1:]:
        thread.start()
    while batcher._jobs.qsize() < 5:
        pass
    may_go_on.set()
    for thread in threads:
        thread.join()
    batcher.close()
    assert sizes == [1, 4, 1]
    np.testing.assert_allclose([answers[number] for number in range(6)], expected, atol=1e-5)


def test_a_batch_that_fails_fails_for_its_callers_and_the_next_one_is_scored(pair_world: PairWorld) -> None:
    scorer, calls = pair_world.open_scorer(), []

    def score(pairs: list[Pair]) -> list[ScoredPair]:
        calls.append(len(pairs))
        if len(calls) == 1:
            raise UnavailableError("the towers do not answer")
        return scorer.score(pairs)

    batcher = Batcher(score, max_items=4, wait_seconds=0)
    with pytest.raises(UnavailableError):
        batcher.answer(read_pairs(pair_world)[:1])
    assert len(batcher.answer(read_pairs(pair_world)[:1])) == 1
    batcher.close()


def test_work_that_is_cancelled_before_its_batch_is_not_done() -> None:
    is_busy, may_go_on, done = threading.Event(), threading.Event(), []

    def compute(numbers: list[int]) -> list[int]:
        is_busy.set()
        assert may_go_on.wait(10)
        done.extend(numbers)
        return [number * 2 for number in numbers]

    batcher = Batcher(compute, max_items=4, wait_seconds=0)
    first = batcher.submit([1])
    assert is_busy.wait(10)
    cancelled, last = batcher.submit([2]), batcher.submit([3])
    assert cancelled.cancel()
    may_go_on.set()
    assert (first.result(10), last.result(10)) == ([2], [6])
    batcher.close()
    assert done == [1, 3]
