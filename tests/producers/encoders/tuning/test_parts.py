"""Losses, hard negatives, texture, the loop and the measures of a tuning, each beside a slow twin."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import nn

from feature_repo.errors import ConflictError
from producers.encoders.texture import GREY, Texture
from producers.encoders.tuning.examples import (
    GUARD,
    HARD,
    SameProducts,
    Sentences,
    find_guards,
    mine_hard_negatives,
)
from producers.encoders.tuning.fit import FitReport, fit
from producers.encoders.tuning.losses import naming_loss, supervised_contrastive_loss
from producers.encoders.tuning.measures import draw_interval, measure_same_recall, measure_sentences
from producers.index import texture

pytestmark = pytest.mark.usefixtures("one_thread")


def draw_units(rng: np.random.Generator, rows: int, dim: int = 4) -> np.ndarray:
    vectors = rng.normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_contrastive_loss(queries, candidates, positive, counted, scale) -> float:
    losses = []
    for query, is_positive, is_counted in zip(queries, positive, counted, strict=True):
        if is_positive.any():
            exponentials = np.exp(candidates @ query * scale)
            total = exponentials[is_positive | is_counted].sum()
            losses.append(-np.mean([np.log(value / total) for value in exponentials[is_positive]]))
    return float(np.mean(losses)) if losses else 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_the_contrastive_loss_is_that_of_the_paper_and_leaves_out_what_does_not_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, candidates = draw_units(rng, 5), draw_units(rng, 7)
    positive, counted = rng.random((5, 7)) < 0.3, rng.random((5, 7)) < 0.6
    loss = supervised_contrastive_loss(
        *map(torch.from_numpy, (queries, candidates, positive, counted)), torch.tensor(7.0)
    )
    assert float(loss) == pytest.approx(slow_contrastive_loss(queries, candidates, positive, counted, 7.0), abs=1e-5)


def test_the_naming_loss_spreads_the_target_of_an_image_over_its_sentences_by_their_weights() -> None:
    rng = np.random.default_rng(0)
    images, sentences = draw_units(rng, 3), draw_units(rng, 4)
    fits = np.array([0.5, 0.1, 0.2, 0.2], np.float32)
    weights = np.array([[1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]], np.float32)
    wanted = []
    for image, own in zip(images, weights, strict=True):
        if own.any():
            odds = np.exp(sentences @ image * 5) * fits
            wanted.append(-(own / own.sum() * np.log(odds / odds.sum())).sum())
    loss = naming_loss(*map(torch.from_numpy, (images, sentences, fits, weights)), torch.tensor(5.0))
    assert float(loss) == pytest.approx(np.mean(wanted), abs=1e-5)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=30)
def test_hard_negatives_are_the_nearest_that_are_known_to_differ_or_farther_than_the_guard(
    seed: int, is_complete: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors, groups = draw_units(rng, 30), rng.integers(0, 8, 30)
    complete = np.full(30, is_complete)
    different = rng.integers(0, 30, (6, 2))
    different = different[groups[different[:, 0]] != groups[different[:, 1]]]
    known = SameProducts(groups, complete, different)
    guards = find_guards(vectors, known.list_groups())
    rows = rng.permutation(30)[:10]
    found = mine_hard_negatives(vectors, known, guards, rows)
    labelled = {frozenset(pair) for pair in different.tolist()}
    for row, own in zip(rows.tolist(), found, strict=True):
        others = [
            other
            for other in np.argsort(-(vectors @ vectors[row]), kind="stable").tolist()
            if groups[other] != groups[row]
            and (is_complete or frozenset((row, other)) in labelled or vectors[other] @ vectors[row] < guards[row])
        ]
        assert own[own >= 0].tolist() == others[:HARD]


def test_the_guard_is_a_share_of_the_cosine_of_a_products_own_pairs() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [1, 0]], np.float32)
    guards = find_guards(vectors, [np.array([0, 1, 3])])
    assert guards == pytest.approx(GUARD * np.array([0.9, 0.8, np.mean([0.9, 0.8, 0.9]), 0.9]))


def test_texture_within_a_model_equals_the_description_of_the_index() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 24, 24, 3), dtype=np.uint8)
    pixels[1] = 200  # a picture without any texture
    grey = pixels.astype(np.float32) @ np.array(GREY, np.float32)
    dictionary = texture.learn_dictionary(list(grey))
    ours = Texture(len(dictionary.entries), texture.PATCH, texture.NOISE)
    ours.set_dictionary(dictionary.mean, dictionary.whitening, dictionary.entries)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    described = np.stack([dictionary.describe(picture) for picture in grey])
    assert np.abs(ours(values).numpy() - described).max() < 0.02
    ours.fit_scale(ours(values))
    assert np.abs(ours(values).numpy().mean(axis=0)).max() < 1e-3


def slow_same_recall(vectors: np.ndarray, groups: np.ndarray, query: int) -> float:
    order = [row for row in np.argsort(-(vectors @ vectors[query]), kind="stable") if row != query][:10]
    total = int((groups == groups[query]).sum()) - 1
    return float("nan") if not total else sum(groups[row] == groups[query] for row in order) / min(total, 10)


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_recall_of_the_same_product_counts_its_own_among_the_ten_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, groups = draw_units(rng, 40), rng.integers(0, 12, 40)
    queries = np.arange(0, 40, 3)
    values = measure_same_recall(vectors, groups, queries)
    np.testing.assert_allclose(values, [slow_same_recall(vectors, groups, query) for query in queries])


def test_only_judged_products_count_for_a_sentence_and_equal_scores_favour_none() -> None:
    images = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    sentences = Sentences(["a", "b"], csr_array([[1, 0, 0, 0], [0, 0, 1, 0]]), csr_array([[0, 1, 0, 0], [0, 0, 0, 0]]))
    values = measure_sentences(np.array([[1, 0], [0, 1]], np.float32), images, sentences)
    assert values[0] == pytest.approx(0.5)  # the judged misfit of equal score comes first, the unjudged one nowhere
    assert np.isnan(values[1])  # nothing was judged not to fit


def test_an_interval_of_equal_differences_is_a_point_and_one_of_a_single_design_too() -> None:
    before = np.array([0.1, 0.5, 0.9])
    assert draw_interval(before, before + 0.1, np.arange(3)) == pytest.approx((0.1, 0.1))
    assert draw_interval(before, before * 2, np.zeros(3, np.int64)) == pytest.approx((0.5, 0.5))


class Regression(nn.Module):
    """The loss of a linear layer on random points; dropout makes a step depend on torch's generator, too."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self._layer = [layer]
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, rng: np.random.Generator) -> torch.Tensor:
        points = torch.from_numpy(rng.normal(size=(32, 3)).astype(np.float32))
        outputs = self._layer[0](nn.functional.dropout(points, 0.2))[:, 0] * self.scale
        return (outputs - points.sum(dim=1)).square().mean()


def run_fit(folder: Path, *, stop_at: int | None = None, identity: str = "a") -> tuple[FitReport, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)

    def progress(done: int, total: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    def measure() -> float:
        return -float((layer.weight.detach() - 1).square().sum())

    report = fit(
        layer,
        Regression(layer),
        measure,
        seed=3,
        seconds=None,
        folder=folder,
        identity=identity,
        progress=progress,
    )
    return report, layer.weight.detach().clone()


def test_a_killed_tuning_continues_and_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed, weights = run_fit(tmp_path / "undisturbed")
    for stop_at in (70, 71, 150):  # killed three times, also between two saved states
        with pytest.raises(KeyboardInterrupt):
            run_fit(tmp_path / "killed", stop_at=stop_at)
    continued, resumed = run_fit(tmp_path / "killed")
    assert continued.resumed_at == 140
    assert continued.measured == undisturbed.measured
    assert undisturbed.is_better
    assert torch.equal(weights, resumed)
    with pytest.raises(ConflictError, match="other data or settings"):
        run_fit(tmp_path / "killed", identity="b")
