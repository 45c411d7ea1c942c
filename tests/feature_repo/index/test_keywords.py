"""BM25 of titles by their Chinese and English words."""

import math
from pathlib import Path

import numpy as np
import pytest

from feature_repo.index.keywords import K1, B, build_keywords, open_keywords, write_keywords
from feature_repo.index.segmentation import segment_text

TITLES = ["女童连衣裙 红色", "红色积木", "Red dresses for the girl", None, "积木 积木 益智"]


def test_cuts_chinese_into_words_and_english_by_its_own_rules() -> None:
    assert segment_text("女童连衣裙，粉色") == ["女童", "连衣裙", "粉色"]
    assert segment_text("The Girl's DRESSES and boxes, toys") == ["girl", "dress", "box", "toy"]
    assert segment_text("Ｔ恤 T恤")[:1] == segment_text("T恤")[:1]
    assert segment_text("0.5L sky-blue T-shirts") == ["0.5", "l", "sky", "blue", "t", "shirt"]
    assert segment_text(" ，。!") == []


def test_scores_by_the_formula_of_its_docstring() -> None:
    index = build_keywords(TITLES)
    words = [segment_text(title or "") for title in TITLES]
    mean = np.mean([len(one) for one in words])
    expected = []
    for one in words:
        norm = K1 * (1 - B + B * len(one) / mean)
        score = 0.0
        for word in ("积木", "红色"):
            frequency = sum(word in other for other in words)
            score += (
                math.log(1 + (5 - frequency + 0.5) / (frequency + 0.5)) * one.count(word) / (one.count(word) + norm)
            )
        expected.append(score)
    assert index.score(["积木", "红色", "积木"]) == pytest.approx(expected, abs=1e-5)
    assert index.score(["unknown"]).tolist() == [0] * 5


def test_scores_titles_that_came_later_as_if_they_had_been_there() -> None:
    index = build_keywords(TITLES)
    assert index.score_others(TITLES, ["积木", "dress"]) == pytest.approx(index.score(["积木", "dress"]), abs=1e-5)


def test_is_the_same_after_reading(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    write_keywords(build_keywords(TITLES), tmp_path / "k")
    assert open_keywords(tmp_path / "k").score(["积木"]).tolist() == build_keywords(TITLES).score(["积木"]).tolist()


def test_titles_without_any_word_have_no_score() -> None:
    assert build_keywords([None, "!"]).score(["积木"]).tolist() == [0, 0]
