"""BLEU-4 and CIDEr-D on captions whose scores are known."""

import math

import pytest

from feature_repo.evaluation.caption_scores import compute_bleu4, compute_cider_d

LINES = ["红色条纹裙子女童", "蓝色波点帽子男童", "a warm hat for boys"]


def test_captions_that_equal_their_references_get_the_highest_scores() -> None:
    assert compute_bleu4(LINES, [[line] for line in LINES]) == pytest.approx(100)
    assert compute_cider_d(LINES, [[line] for line in LINES]) == pytest.approx(1000)


def test_captions_without_a_token_of_their_references_get_zero() -> None:
    others = [LINES[2], LINES[2], LINES[0]]
    assert compute_cider_d(others, [[line] for line in LINES]) == 0
    assert compute_bleu4(others, [[line] for line in LINES]) == pytest.approx(0, abs=1)


def test_cider_d_is_the_mean_cosine_of_weighted_sequences_times_a_penalty_for_the_length() -> None:
    # "x y" against "x z", and "v" against "w": x is the only shared sequence of the first, in one of two references.
    # One token: cosine 1/2 with equal weights; two to four tokens: 0. Mean over four lengths: 1/8. Equal lengths: no
    # penalty. The second caption gets 0.
    assert compute_cider_d(["x y", "v"], [["x z"], ["w"]]) == pytest.approx(100 * 10 * (1 / 8 + 0) / 2)
    # One token more in the caption: cosine 1/sqrt(3 * 2) and the penalty exp(-1/72).
    expected = 100 * 10 * (1 / math.sqrt(6) / 4 * math.exp(-1 / 72)) / 2
    assert compute_cider_d(["x y u", "v"], [["x z"], ["w"]]) == pytest.approx(expected)


def test_repeating_a_rare_word_does_not_raise_cider_d() -> None:
    references = [["red dress new"], ["blue hat"], ["green shoes"]]
    once, often = (compute_cider_d([line, "blue hat", "green shoes"], references) for line in ("red", "red red red"))
    assert often <= once


def test_captions_may_have_different_numbers_of_references() -> None:
    references = [[LINES[0], LINES[1]], [LINES[1]], [LINES[2]]]
    assert compute_bleu4(LINES, references) == pytest.approx(100)
    assert 600 < compute_cider_d(LINES, references) < 1000
