"""The pair verifier learns from judged pairs, is calibrated, says why, and is read back as it was."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from feature_repo.errors import CorruptDataError, InvalidInputError
from feature_repo.pairs.features import compute_pair_features
from feature_repo.pairs.labels import LabelledPairs
from feature_repo.pairs.verifier import REASONS, load_newest_verifier, load_verifier, save_verifier
from producers.groups.candidates import TOP_K
from producers.groups.matching import train_matcher
from producers.groups.train import TrainedVerifier, choose_threshold, prepare_catalogue, train_verifier
from tests.producers.groups.world import make_offers

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def train(designs: int = 60, seed: int = 0) -> TrainedVerifier:
    offers = make_offers(designs)
    products, statistics = prepare_catalogue(offers.products)
    return train_verifier(products, statistics, offers.judge_all(), encoder_version="e1", seed=seed, now=NOW)


@pytest.fixture(scope="module")
def trained() -> TrainedVerifier:
    return train()


def score(trained: TrainedVerifier, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Score all pairs of other designs than those of the training."""
    offers = make_offers(60, seed)
    products, _ = prepare_catalogue(offers.products)
    pairs = offers.judge_all()
    verifier = trained.verifier
    return verifier.score_pairs(products.with_metric(verifier.metric), pairs.left, pairs.right), pairs.is_same


def test_pairs_of_new_designs_are_told_apart_and_better_than_by_a_cosine(trained: TrainedVerifier) -> None:
    probability, is_same = score(trained, 7)
    predicted = probability >= trained.verifier.threshold
    f1 = 2 * (predicted & is_same).sum() / (predicted.sum() + is_same.sum())
    products, _ = prepare_catalogue(make_offers(60, 7).products)
    pairs = make_offers(60, 7).judge_all()
    vectors = products.vectors["fused"]
    cosine = (vectors[pairs.left] * vectors[pairs.right]).sum(axis=1)
    assert f1 > choose_threshold(cosine, is_same, np.ones(len(cosine)))[1]
    assert abs(trained.f1 - f1) < 0.1  # what is promised out of fold is what new designs get


def test_the_probability_is_calibrated_at_the_share_of_same_pairs(trained: TrainedVerifier) -> None:
    probability, is_same = score(trained, 8)
    assert probability.mean() == pytest.approx(is_same.mean(), rel=0.3)


def test_reasons_add_up_to_the_log_odds_but_for_a_constant(trained: TrainedVerifier) -> None:
    offers = make_offers(30, 3)
    products, _ = prepare_catalogue(offers.products)
    pairs = offers.judge_all()
    features = compute_pair_features(products.with_metric(trained.verifier.metric), pairs.left, pairs.right)
    probability = trained.verifier.score_features(features).astype(np.float64)
    reasons = trained.verifier.explain_pairs(features)
    kept = (probability > 1e-4) & (probability < 1 - 1e-4)
    rest = np.log(probability[kept] / (1 - probability[kept])) - reasons[kept].sum(axis=1)
    assert np.ptp(rest) < 0.05
    assert reasons[pairs.is_same, REASONS.index("image")].mean() > 0


def test_one_seed_gives_one_verifier() -> None:
    first, again, other = (train(25, seed) for seed in (0, 0, 1))
    assert first.verifier.version == again.verifier.version != other.verifier.version


def test_a_stored_verifier_scores_the_same_and_a_damaged_one_is_refused(
    trained: TrainedVerifier, tmp_path: Path
) -> None:
    file = save_verifier(tmp_path, trained.verifier)
    loaded = load_newest_verifier(tmp_path, "e1")
    assert loaded is not None
    np.testing.assert_array_equal(score(replace(trained, verifier=loaded), 7)[0], score(trained, 7)[0])
    assert load_newest_verifier(tmp_path, "e2") is None
    file.rename(tmp_path / "verifier-000000000000.npz")
    with pytest.raises(CorruptDataError, match="restore the file"):
        load_newest_verifier(tmp_path, "e1")
    (tmp_path / "verifier-000000000000.npz").write_bytes(b"PK")
    with pytest.raises(CorruptDataError, match="not a readable pair verifier"):
        load_verifier(tmp_path / "verifier-000000000000.npz")


def test_too_few_pairs_of_one_answer_are_refused() -> None:
    offers = make_offers(10)
    products, statistics = prepare_catalogue(offers.products)
    pairs = offers.judge_all()
    few = LabelledPairs(pairs.left[:30], pairs.right[:30], np.zeros(30, bool), np.ones(30))
    with pytest.raises(InvalidInputError, match="0 pairs are the same product and 30 are not"):
        train_verifier(products, statistics, few, encoder_version="", seed=0, now=NOW)


def test_contexts_are_learned_from_as_many_candidates_as_groups_will_have() -> None:
    offers = make_offers(60)
    everything = offers.judge_all()
    kept = np.flatnonzero(everything.is_same | (np.arange(len(everything.left)) % 40 == 0))
    judged = LabelledPairs(*(getattr(everything, field.name)[kept] for field in fields(LabelledPairs)))

    def learn_context(top_k: int) -> str:
        trained = train_matcher(offers.products, judged, encoder_version="e1", seed=0, now=NOW, top_k=top_k)
        return trained.verifier.context_text

    assert learn_context(1) != learn_context(TOP_K) == learn_context(TOP_K)


def test_the_threshold_has_the_largest_weighted_f1_of_all() -> None:
    rng = np.random.default_rng(0)
    is_same, weight = rng.random(40) < 0.4, rng.random(40) + 0.1
    probability = np.round(rng.random(40) * 0.5 + is_same * 0.3, 2).astype(np.float32)
    threshold, f1 = choose_threshold(probability, is_same, weight)

    def measure(limit: float) -> float:
        taken = probability >= limit
        return float(2 * weight[taken & is_same].sum() / (weight[taken].sum() + weight[is_same].sum()))

    assert measure(threshold) == pytest.approx(f1)
    assert f1 == pytest.approx(max(measure(limit) for limit in probability))
